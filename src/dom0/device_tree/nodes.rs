//! The nodes of dom0's tree that are not the host's: rewritten in place, or new.

use alloc::format;
use alloc::vec::Vec;

use super::Builder;
use crate::platform::BootError;
use crate::platform::interrupt::FIRST_PPI;
use crate::platform::ranges::PhysRange;
use crate::platform::tree::{Node, Tree};

/// All CPUs, low level: what a guest's private interrupts look like.
const PRIVATE_LOW: u32 = 0xf08;
const PRIVATE: u32 = 1;
/// Regions of a guest's GIC: distributor and CPU interface.
const GIC_REGIONS: usize = 2;
/// Function ids of PSCI 0.1, which the virtual PSCI serves too.
const PSCI_CPU_OFF: u32 = 1;
const PSCI_CPU_ON: u32 = 2;

impl Builder<'_> {
    /// The GIC without what virtualizes it.
    pub(super) fn gic(&mut self, node: &Node<'_>) -> Result<(), BootError> {
        let Some(open) = self.out.begin("interrupt-controller", &node.path())? else {
            return Ok(());
        };
        let copied = |name: &str| {
            matches!(
                name,
                "phandle"
                    | "linux,phandle"
                    | "compatible"
                    | "#address-cells"
                    | "#size-cells"
                    | "#interrupt-cells"
                    | "interrupt-controller"
                    // Its own where it does not inherit one: the root's may be a controller in front of it.
                    | "interrupt-parent"
                    | "ranges"
            )
        };
        self.copy_properties(node, copied)?;
        let entry = node.parent().map_or(0, |bus| {
            bus.address_cells().saturating_add(bus.size_cells())
        });
        let reg = node.property("reg").unwrap_or(&[]);
        let visible = entry.saturating_mul(4 * GIC_REGIONS);
        self.out.bytes("reg", reg.get(..visible).unwrap_or(reg))?;
        for child in node.children() {
            self.message_frame(&child)?;
        }
        self.out.end(open)
    }

    fn message_frame(&mut self, node: &Node<'_>) -> Result<(), BootError> {
        let path = node.path();
        let frames = &self.machine.host.gic.frames;
        let Some(frame) = frames.iter().find(|frame| frame.path == path) else {
            return Ok(());
        };
        let Some(open) = self.out.begin(node.name(), &path)? else {
            return Ok(());
        };
        let ours = |name: &str| !matches!(name, "arm,msi-base-spi" | "arm,msi-num-spis");
        match frame.interrupts {
            Some((base, count)) => {
                self.copy_properties(node, ours)?;
                self.out.cells("arm,msi-base-spi", &[base])?;
                self.out.cells("arm,msi-num-spis", &[count])?;
            }
            None => self.copy_properties(node, |_| true)?,
        }
        self.out.end(open)
    }

    /// The generic timer as a guest has it: without the hypervisor's.
    pub(super) fn timer(&mut self, node: &Node<'_>) -> Result<(), BootError> {
        let Some(open) = self.out.begin("timer", &node.path())? else {
            return Ok(());
        };
        let timer = &self.machine.host.timer;
        let (secure, physical, virtual_timer) =
            (timer.secure_physical, timer.physical, timer.virtual_timer);
        let frequency = timer.frequency;
        self.out.strings("compatible", &["arm,armv7-timer"])?;
        self.interrupts(&[secure, physical, virtual_timer])?;
        if let Some(frequency) = frequency {
            self.out.cells("clock-frequency", &[frequency])?;
        }
        self.out.end(open)
    }

    /// How a guest learns that it runs under a hypervisor with Xen's ABI.
    pub(super) fn hypervisor(&mut self) -> Result<(), BootError> {
        let Some(open) = self.out.begin("hypervisor", "/hypervisor")? else {
            return Ok(());
        };
        let mut regions: Vec<PhysRange> = Vec::from([self.config.grant]);
        regions.extend(self.config.extended);
        let reg = self.bus.reg(&regions)?;
        self.out
            .strings("compatible", &["xen,xen-4.17", "xen,xen"])?;
        self.out.bytes("reg", &reg)?;
        self.interrupts(&[self.config.event_interrupt])?;
        self.out.end(open)
    }

    pub(super) fn psci(&mut self) -> Result<(), BootError> {
        let Some(open) = self.out.begin("psci", "/psci")? else {
            return Ok(());
        };
        let compatible = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];
        self.out.strings("compatible", &compatible)?;
        self.out.string("method", "hvc")?;
        self.out.cells("cpu_off", &[PSCI_CPU_OFF])?;
        self.out.cells("cpu_on", &[PSCI_CPU_ON])?;
        self.out.end(open)
    }

    /// vCPUs look like the host's first CPU; their number is their MPIDR.
    pub(super) fn cpus(&mut self, tree: &Tree<'_>) -> Result<(), BootError> {
        let Some(open) = self.out.begin("cpus", "/cpus")? else {
            return Ok(());
        };
        self.out.cells("#address-cells", &[1])?;
        self.out.cells("#size-cells", &[0])?;
        let first = tree.find("/cpus").and_then(|cpus| {
            cpus.children()
                .find(|n| n.is_type("cpu") || n.base_name() == "cpu")
        });
        let compatible = first.and_then(|cpu| cpu.property("compatible"));
        let frequency = first.and_then(|cpu| cpu.u32("clock-frequency"));
        for vcpu in 0..self.config.vcpus {
            let name = format!("cpu@{vcpu:x}");
            let Some(cpu) = self.out.begin(&name, &name)? else {
                continue;
            };
            if let Some(compatible) = compatible {
                self.out.bytes("compatible", compatible)?;
            }
            self.out.string("device_type", "cpu")?;
            self.out.cells("reg", &[vcpu])?;
            if let Some(frequency) = frequency {
                self.out.cells("clock-frequency", &[frequency])?;
            }
            self.out.end(cpu)?;
        }
        self.out.end(open)
    }

    /// One node for all banks, named by the first; none for no bank.
    pub(super) fn memory(&mut self, banks: &[PhysRange]) -> Result<(), BootError> {
        let Some(first) = banks.first() else {
            return Ok(());
        };
        let name = format!("memory@{:x}", first.base());
        let Some(open) = self.out.begin(&name, &name)? else {
            return Ok(());
        };
        let reg = self.bus.reg(banks)?;
        self.out.string("device_type", "memory")?;
        self.out.bytes("reg", &reg)?;
        self.out.end(open)
    }

    /// `interrupts` of private lines, and the GIC as their parent.
    fn interrupts(&mut self, intids: &[u32]) -> Result<(), BootError> {
        let specifiers = intids
            .iter()
            .flat_map(|intid| [PRIVATE, intid.saturating_sub(FIRST_PPI), PRIVATE_LOW]);
        let specifiers: Vec<u32> = specifiers.collect();
        self.out.cells("interrupts", &specifiers)?;
        match self.gic_phandle {
            Some(phandle) => self.out.cells("interrupt-parent", &[phandle]),
            None => Ok(()),
        }
    }
}

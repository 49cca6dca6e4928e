//! The nodes of dom0's tree that are not the host's: rewritten in place, or new.

use alloc::format;
use alloc::vec::Vec;

use dt::{Node, PHANDLE};

use super::Builder;
use crate::dom0::selection::Fate;
use crate::loader::nodes;
use crate::platform::BootError;
use crate::platform::ranges::PhysRange;

/// Regions of a guest's GIC: distributor and CPU interface.
const GIC_REGIONS: usize = 2;

impl Builder<'_> {
    /// Writes the GIC without what virtualizes it.
    pub(super) fn gic(&mut self, node: &Node<'_>) {
        self.out.begin(node.name());
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
        self.copy_properties(node, copied);
        let entry = node.parent().map_or(0, |bus| {
            bus.address_cells().saturating_add(bus.size_cells())
        });
        let reg = node.property("reg").unwrap_or(&[]);
        let visible = entry.saturating_mul(4 * GIC_REGIONS);
        self.out.property("reg", reg.get(..visible).unwrap_or(reg));
        for child in node.children() {
            self.message_frame(&child);
        }
        self.out.end();
    }

    fn message_frame(&mut self, node: &Node<'_>) {
        let path = node.path();
        let frames = &self.machine.host.gic.frames;
        let Some(frame) = frames.iter().find(|frame| path == frame.path.as_str()) else {
            return;
        };
        self.out.begin(node.name());
        let ours = |name: &str| !matches!(name, "arm,msi-base-spi" | "arm,msi-num-spis");
        match frame.interrupts {
            Some((base, count)) => {
                self.copy_properties(node, ours);
                self.out.cells("arm,msi-base-spi", &[base]);
                self.out.cells("arm,msi-num-spis", &[count]);
            }
            None => self.copy_properties(node, |_| true),
        }
        self.out.end();
    }

    /// Writes the generic timer as a guest has it, without the hypervisor's: in place of the machine's node, if it has one.
    pub(super) fn timer(&mut self, node: Option<&Node<'_>>) {
        let timer = &self.machine.host.timer;
        let lines = [timer.secure_physical, timer.physical, timer.virtual_timer];
        let frequency = timer.frequency;
        let own_name = timer.path.trim_start_matches('/');
        self.out.begin(node.map_or(own_name, |node| node.name()));
        if let Some(node) = node {
            self.copy_phandle(node);
        }
        self.out.strings("compatible", &["arm,armv7-timer"]);
        self.interrupts(&lines);
        if let Some(frequency) = frequency {
            self.out.cells("clock-frequency", &[frequency]);
        }
        self.out.end();
    }

    /// Writes what is left of a node that dom0 does not get: its place, and how others refer to it. Without `compatible`
    /// nobody takes it for a device.
    pub(super) fn stub(&mut self, node: &Node<'_>) {
        self.out.begin(node.name());
        self.stub_properties(node);
        self.children(node);
        self.out.end();
    }

    fn stub_properties(&mut self, node: &Node<'_>) {
        let shown = |n: &Node<'_>| self.selection.fate(n) != Fate::Drop;
        let is_bus = node.children().any(|child| shown(&child));
        let keep = |name: &str| match name {
            "#address-cells" | "#size-cells" | "ranges" => is_bus,
            "reg" | "interrupt-controller" => true,
            // How many cells follow a phandle of this node.
            name => PHANDLE.contains(&name) || name.starts_with('#') && name.ends_with("-cells"),
        };
        self.copy_properties(node, keep);
        self.out.string("status", "disabled");
    }

    /// Writes the node by which a guest learns that it runs under a hypervisor with Xen's ABI.
    pub(super) fn hypervisor(&mut self) -> Result<(), BootError> {
        let mut regions: Vec<PhysRange> = Vec::from([self.config.grant]);
        regions.extend(self.config.extended);
        let reg = self.bus.reg(&regions)?;
        self.out.begin("hypervisor");
        self.out.strings("compatible", &["xen,xen-4.17", "xen,xen"]);
        self.out.property("reg", &reg);
        self.interrupts(&[self.config.event_interrupt]);
        self.out.end();
        Ok(())
    }

    /// Writes the virtual PSCI.
    pub(super) fn psci(&mut self) {
        self.out.begin("psci");
        if let Some(host) = self.machine.tree.find("/psci") {
            self.copy_phandle(&host);
        }
        nodes::psci(&mut self.out);
        self.out.end();
    }

    /// Writes the vCPUs. They look like the host's first CPU; their number is their MPIDR. Who refers to a CPU of the host
    /// finds the vCPU of that number, or a stub where there is none.
    pub(super) fn cpus(&mut self) {
        let host = self.machine.tree.find("/cpus");
        let is_cpu = |n: &Node<'_>| n.is_type("cpu") || n.base_name() == "cpu";
        let children = || host.into_iter().flat_map(|cpus| cpus.children());
        let first = children().find(is_cpu);
        let compatible = first.and_then(|cpu| cpu.property("compatible"));
        let frequency = first.and_then(|cpu| cpu.u32("clock-frequency"));
        let mut cpus = children().filter(is_cpu);
        self.out.begin("cpus");
        if let Some(host) = host {
            self.copy_phandle(&host);
        }
        self.out.cells("#address-cells", &[1]);
        self.out.cells("#size-cells", &[0]);
        for vcpu in 0..self.config.vcpus {
            let cpu = cpus.next();
            self.out.begin(&format!("cpu@{vcpu:x}"));
            if let Some(cpu) = cpu {
                let kept = |name: &str| PHANDLE.contains(&name) || name == "#cooling-cells";
                self.copy_properties(&cpu, kept);
            }
            if let Some(compatible) = compatible {
                self.out.property("compatible", compatible);
            }
            self.out.string("device_type", "cpu");
            self.out.cells("reg", &[vcpu]);
            if let Some(frequency) = frequency {
                self.out.cells("clock-frequency", &[frequency]);
            }
            if let Some(cpu) = cpu {
                self.children(&cpu);
            }
            self.out.end();
        }
        for (number, cpu) in cpus.enumerate() {
            if self.selection.fate(&cpu) == Fate::Stub {
                // Anything named "cpu" would be taken for one.
                self.out.begin(&format!("absent-{number}"));
                self.copy_properties(&cpu, |name| {
                    PHANDLE.contains(&name) || name == "#cooling-cells"
                });
                self.children(&cpu);
                self.out.end();
            }
        }
        for other in children().filter(|n| !is_cpu(n)) {
            self.node(&other);
        }
        self.out.end();
    }

    /// Writes one node for all banks, named by the first; none for no bank.
    pub(super) fn memory(&mut self, banks: &[PhysRange]) -> Result<(), BootError> {
        let Some(first) = banks.first() else {
            return Ok(());
        };
        let reg = self.bus.reg(banks)?;
        self.out.begin(&format!("memory@{:x}", first.base()));
        self.out.string("device_type", "memory");
        self.out.property("reg", &reg);
        self.out.end();
        Ok(())
    }

    /// Writes `interrupts` of private lines, and the GIC as their parent.
    fn interrupts(&mut self, intids: &[u32]) {
        nodes::private_interrupts(&mut self.out, intids, self.gic_phandle);
    }
}

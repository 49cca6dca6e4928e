//! The GICv2's register regions, its maintenance interrupt and its message frames.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dt::{Node, Tree};

use super::BootError;
use super::interrupt;
use super::ranges::PhysRange;
use super::translate;

/// Compatibles of interrupt controllers with the GICv2 register layout.
const GICV2: &[&str] = &[
    "arm,cortex-a15-gic",
    "arm,cortex-a7-gic",
    "arm,gic-400",
    "arm,cortex-a9-gic",
    "qcom,msm-qgic2",
    "brcm,brahma-b15-gic",
];
const GICV3: &[&str] = &["arm,gic-v3"];
/// The CPU interface extends to GICC_DIR at 0x1000 (IHI 0048B 4.1.3); some trees describe one page.
pub const GICC_SIZE: u64 = 0x2000;
/// Offsets from GICC on Cortex-A15, A7 and GIC-400 (Cortex-A15 TRM 8.2).
const GICH_AFTER_GICC: u64 = 0x2000;
const GICV_AFTER_GICC: u64 = 0x4000;
const GICH_SIZE: u64 = 0x2000;
/// Controllers with a fixed maintenance interrupt (Cortex-A15 TRM 8.2.1, Cortex-A7 TRM 8.2.1, GIC-400 TRM 2.3.2).
const FIXED_MAINTENANCE: &[&str] = &["arm,cortex-a15-gic", "arm,cortex-a7-gic", "arm,gic-400"];
const MAINTENANCE: u32 = 25;
/// Size of GICC or GICV at steps of 64 KiB: each page of 4 KiB is there 16 times in a row, so that its last alias and the
/// first one of the next page are adjacent.
const AT_64K: u64 = 0x2_0000;
/// Offset of the first page's last alias.
const LAST_ALIAS: u64 = 0xF000;
/// `GICC_IIDR` (IHI 0048B 4.4.16).
const GICC_IIDR: u64 = 0xFC;
/// `GICC_IIDR` without the product and the revision: version 2, by Arm.
const IIDR_MASK: u32 = 0x000F_0FFF;
const IIDR: u32 = 0x0002_043B;
/// Maximum number of message frames.
const MAX_FRAMES: usize = 8;

/// The interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GicInfo {
    /// Path of its node.
    pub path: String,
    /// Distributor, GICD.
    pub distributor: PhysRange,
    /// CPU interface, GICC; at least 8 KiB.
    pub cpu: PhysRange,
    /// Virtual interface control, GICH.
    pub hypervisor: PhysRange,
    /// Virtual CPU interface, GICV; at least 8 KiB.
    pub virtual_cpu: PhysRange,
    /// Interrupt id of the maintenance interrupt.
    pub maintenance: u32,
    /// GICv2m frames, which turn writes into shared interrupts.
    pub frames: Vec<MsiFrame>,
    /// GICC is at steps of 64 KiB, see [`GicInfo::find_steps`].
    at_64k: bool,
}

/// A GICv2m frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsiFrame {
    /// Path of its node.
    pub path: String,
    /// Its registers.
    pub reg: PhysRange,
    /// First INTID and count; `None` if only the frame's register has them, see [`MsiFrame::set_type_register`].
    pub interrupts: Option<(u32, u32)>,
}

/// Offset of `V2M_MSI_TYPER` in a frame (Server Base System Architecture, appendix E).
pub const MSI_TYPER: u64 = 8;

impl MsiFrame {
    /// Sets the interrupts from `V2M_MSI_TYPER`, unless the tree has them.
    pub fn set_type_register(&mut self, typer: u32) {
        let (base, count) = ((typer >> 16) & 0x3ff, typer & 0x3ff);
        if self.interrupts.is_none() && base >= interrupt::FIRST_SPI && count > 0 {
            self.interrupts = Some((base, count));
        }
    }
}

impl GicInfo {
    /// Finds out if GICC is at steps of 64 KiB: if its region has room for it, and the identification is there as the first
    /// and the last alias. `read` reads a word of the machine.
    pub fn find_steps(&mut self, read: impl Fn(u64) -> u32) {
        let is_gicc = |offset| read(self.cpu.base() + offset + GICC_IIDR) & IIDR_MASK == IIDR;
        self.at_64k = self.cpu.size() == AT_64K && is_gicc(0) && is_gicc(LAST_ALIAS);
    }

    /// Returns GICC without aliases: 8 KiB from here on are its registers.
    pub fn cpu_registers(&self) -> PhysRange {
        self.without_aliases(self.cpu)
    }

    /// Returns GICV without aliases, as [`GicInfo::cpu_registers`].
    pub fn virtual_cpu_registers(&self) -> PhysRange {
        self.without_aliases(self.virtual_cpu)
    }

    fn without_aliases(&self, range: PhysRange) -> PhysRange {
        let registers = PhysRange::new(range.base() + LAST_ALIAS, GICC_SIZE);
        match self.at_64k && range.size() == AT_64K {
            true => registers.unwrap_or(range),
            false => range,
        }
    }

    /// Returns the regions that no domain may map.
    pub fn regions(&self) -> [PhysRange; 4] {
        [
            self.distributor,
            self.cpu,
            self.hypervisor,
            self.virtual_cpu,
        ]
    }
}

/// Returns the GIC's node, usable or not.
pub(crate) fn node<'a>(tree: &'a Tree<'a>) -> Option<Node<'a>> {
    let candidates = tree.compatible(GICV2);
    let mut candidates = candidates.filter(|n| n.has("interrupt-controller") && n.is_enabled());
    candidates.next()
}

pub(super) fn info(
    node: Option<Node<'_>>,
    tree: &Tree<'_>,
    notes: &mut Vec<String>,
) -> Result<GicInfo, BootError> {
    let Some(node) = node else {
        let v3 = tree.all().any(|n| n.is_compatible(GICV3));
        let found = if v3 { "arm,gic-v3" } else { "no node of one" };
        return Err(BootError::Gic(String::from(found)));
    };
    let path = node.path();
    let regions: Vec<_> = translate::reg_ranges(&node).take(4).collect();
    let (distributor, cpu) = match regions.as_slice() {
        [Some(distributor), Some(cpu), ..] => (*distributor, *cpu),
        _ => {
            let count = regions.iter().flatten().count();
            return Err(BootError::Gic(format!(
                "{count} register regions at {path}"
            )));
        }
    };
    let after = |offset, size| PhysRange::new(cpu.base() + offset, size);
    let mut synthesised = false;
    let (hypervisor, virtual_cpu) = match regions.as_slice() {
        [_, _, Some(hypervisor), Some(virtual_cpu)] => (Some(*hypervisor), Some(*virtual_cpu)),
        [_, _, _, _] => (None, None),
        _ => {
            synthesised = true;
            notes.push(format!(
                "GIC: {path} names no GICH and GICV; taken from GICC {cpu}"
            ));
            (
                after(GICH_AFTER_GICC, GICH_SIZE),
                after(GICV_AFTER_GICC, GICC_SIZE),
            )
        }
    };
    let grown = |range: PhysRange| PhysRange::new(range.base(), range.size().max(GICC_SIZE));
    let (Some(hypervisor), Some(virtual_cpu), Some(cpu)) =
        (hypervisor, virtual_cpu.and_then(grown), grown(cpu))
    else {
        return Err(BootError::Gic(format!("unusable GICH or GICV at {path}")));
    };
    Ok(GicInfo {
        maintenance: maintenance(&node, synthesised)?,
        frames: frames(&node, notes),
        path: path.to_string(),
        distributor,
        cpu,
        hypervisor,
        virtual_cpu,
        at_64k: false,
    })
}

fn maintenance(node: &Node<'_>, synthesised: bool) -> Result<u32, BootError> {
    let own = interrupt::routes(node, node).into_iter().next();
    match own {
        Some(interrupt::Route::Gic(interrupt)) if interrupt.is_private() => Ok(interrupt.intid),
        None if synthesised || node.is_compatible(FIXED_MAINTENANCE) => Ok(MAINTENANCE),
        _ => Err(BootError::Gic(format!(
            "no maintenance interrupt at {}",
            node.path()
        ))),
    }
}

fn frames(gic: &Node<'_>, notes: &mut Vec<String>) -> Vec<MsiFrame> {
    let children = gic
        .children()
        .filter(|n| n.is_compatible(&["arm,gic-v2m-frame"]));
    let mut frames = Vec::new();
    for node in children {
        let path = node.path();
        if frames.len() >= MAX_FRAMES {
            notes.push(format!(
                "GIC: more than {MAX_FRAMES} message frames, {path} and the rest ignored"
            ));
            break;
        }
        let Some(reg) = translate::reg_ranges(&node).next().flatten() else {
            notes.push(format!(
                "GIC: message frame {path} has no usable reg, ignored"
            ));
            continue;
        };
        let base = node.u32("arm,msi-base-spi");
        let count = node.u32("arm,msi-num-spis");
        frames.push(MsiFrame {
            path: path.to_string(),
            reg,
            interrupts: base.zip(count),
        });
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::{GICC_SIZE, GicInfo};
    use crate::platform::host_dt::HostInfo;
    use crate::platform::ranges::PhysRange;
    use crate::platform::testing::{VIRT, compile_with};

    fn gic(change: (&str, &str)) -> GicInfo {
        HostInfo::parse(&compile_with(VIRT, &[change])).unwrap().gic
    }

    fn range(base: u64, size: u64) -> PhysRange {
        PhysRange::new(base, size).unwrap()
    }

    const AS_IT_IS: (&str, &str) = ("0 0x10000>, <0 0x8030000", "0 0x10000>, <0 0x8030000");
    const WIDE: (&str, &str) = (
        "<0 0x8010000 0 0x10000>, <0 0x8030000 0 0x10000>, <0 0x8040000 0 0x10000>",
        "<0 0x8010000 0 0x20000>, <0 0x8030000 0 0x10000>, <0 0x8040000 0 0x20000>",
    );
    const GICC: u64 = 0x801_0000;
    const GICV: u64 = 0x804_0000;

    #[test]
    fn a_gic_at_steps_of_64_kib_is_used_where_its_aliases_meet() {
        let mut gic = gic(WIDE);
        gic.find_steps(|at| match at {
            0x801_00FC | 0x801_F0FC => 0x0202_143B,
            _ => 0,
        });
        assert_eq!(gic.cpu_registers(), range(GICC + 0xF000, GICC_SIZE));
        assert_eq!(gic.virtual_cpu_registers(), range(GICV + 0xF000, GICC_SIZE));
        assert_eq!(gic.regions()[1], range(GICC, 0x2_0000), "all of it is kept");
    }

    #[test]
    fn room_for_aliases_does_not_make_them() {
        for answers in [[0x0202_043B, 0], [0, 0x0202_043B], [0, 0]] {
            let mut gic = gic(WIDE);
            gic.find_steps(|at| answers[usize::from(at == 0x801_F0FC)]);
            assert_eq!(gic.cpu_registers(), range(GICC, 0x2_0000));
            assert_eq!(gic.virtual_cpu_registers(), range(GICV, 0x2_0000));
        }
        let mut gic = gic(AS_IT_IS);
        gic.find_steps(|_| panic!("there is no room"));
        assert_eq!(gic.cpu_registers(), range(GICC, 0x1_0000));
    }
}

//! Interrupts of the processors' performance monitors.

use alloc::vec::Vec;

use dt::{Node, Tree};

use super::cpus::{CpuInfo, mpidr};
use super::interrupt::{self, Interrupt, Route};

pub(crate) const MONITORS: &[&str] = &[
    "arm,cortex-a7-pmu",
    "arm,cortex-a12-pmu",
    "arm,cortex-a15-pmu",
    "arm,cortex-a17-pmu",
];

/// The interrupt of one processor's monitors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MonitorsLine {
    /// Affinity fields of the processor's MPIDR.
    pub mpidr: u32,
    /// A PPI, or an SPI of this processor alone.
    pub line: Interrupt,
}

/// Returns the lines of all processors that have one at the GIC. SPIs are in the order of `interrupt-affinity`, or without it
/// in that of the processors (Linux' arm,pmu.yaml).
pub(super) fn lines(
    tree: &Tree<'_>,
    gic: Option<&Node<'_>>,
    cpus: &[CpuInfo],
) -> Vec<MonitorsLine> {
    let Some(gic) = gic else { return Vec::new() };
    let mut lines: Vec<MonitorsLine> = Vec::new();
    let nodes = tree
        .all()
        .filter(|n| n.is_compatible(MONITORS) && n.is_enabled());
    for node in nodes {
        let served: Vec<u32> = match node.has("interrupt-affinity") {
            true => node
                .cells("interrupt-affinity")
                .filter_map(|phandle| mpidr(&tree.by_phandle(phandle)?))
                .collect(),
            false => cpus.iter().map(|cpu| cpu.mpidr).collect(),
        };
        let routes = interrupt::routes(&node, gic);
        let is_private = matches!(routes.first(), Some(Route::Gic(line)) if line.is_private());
        let line_of = |index: usize| match routes.get(if is_private { 0 } else { index }) {
            Some(Route::Gic(line)) if line.is_private() == is_private => Some(*line),
            _ => None,
        };
        for (index, mpidr) in served.iter().enumerate() {
            let is_new = lines.iter().all(|known| known.mpidr != *mpidr);
            if let (Some(line), true) = (line_of(index), is_new) {
                lines.push(MonitorsLine {
                    mpidr: *mpidr,
                    line,
                });
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::host_dt::HostInfo;
    use super::super::testing::{VEXPRESS, VIRT, compile_with};
    use alloc::vec::Vec;

    fn lines(source: &str, changes: &[(&str, &str)]) -> Vec<(u32, u32)> {
        let host = HostInfo::parse(&compile_with(source, changes)).unwrap();
        let lines = host.monitors.iter();
        lines.map(|line| (line.mpidr, line.line.intid)).collect()
    }

    #[test]
    fn a_private_interrupt_is_every_processor_s() {
        assert_eq!(lines(VIRT, &[]), []);
        let known = [("vendor,some-pmu", "arm,cortex-a15-pmu")];
        assert_eq!(lines(VIRT, &known), [(0, 23), (1, 23)]);
    }

    #[test]
    fn shared_interrupts_are_in_the_order_of_the_processors() {
        assert_eq!(lines(VEXPRESS, &[]), [(0, 100), (1, 101)]);
        let one = [("<0 68 4>, <0 69 4>", "<0 68 4>")];
        assert_eq!(lines(VEXPRESS, &one), [(0, 100)]);
    }

    #[test]
    fn affinity_names_the_processors() {
        let cpus = compile_with(VEXPRESS, &[]);
        let host = HostInfo::parse(&cpus).unwrap();
        assert_eq!(host.cpus.len(), 2);
        let changes = [
            (
                "<0 68 4>, <0 69 4>",
                "<0 68 4>, <0 69 4>; interrupt-affinity = <&cpu_b &cpu_a>",
            ),
            ("cpu@0 {", "cpu_a: cpu@0 {"),
            ("cpu@1 {", "cpu_b: cpu@1 {"),
        ];
        assert_eq!(lines(VEXPRESS, &changes), [(1, 100), (0, 101)]);
        let nobody = [(
            "<0 68 4>, <0 69 4>",
            "<0 68 4>, <0 69 4>; interrupt-affinity = <0x7777>",
        )];
        assert_eq!(lines(VEXPRESS, &nobody), []);
    }

    #[test]
    fn monitors_that_are_disabled_have_none() {
        let off = [(
            "<0 68 4>, <0 69 4>",
            "<0 68 4>, <0 69 4>; status = \"disabled\"",
        )];
        assert_eq!(lines(VEXPRESS, &off), []);
    }
}

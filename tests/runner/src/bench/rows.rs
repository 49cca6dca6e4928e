//! The rows of the bench: name, one round of it in words, and the goal, a ratio to Xen's figure.

/// Rows that belong together in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// One vCPU of dom0 alone.
    One,
    /// Two vCPUs of dom0 that share a CPU.
    Two,
    /// dom0 and a domU that share a CPU.
    Domains,
    /// Writes of a domU that are logged, which Xen has only on x86.
    Log,
    /// Work in which no hypervisor should be seen.
    Control,
    /// With 1, 10 and 100 other domains alive.
    Scale,
    /// Whole systems.
    Macro,
}

/// How a figure is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Instructions,
    Microseconds,
    Bytes,
    Kib,
    Count,
}

pub struct Row {
    pub group: Group,
    pub name: &'static str,
    pub what: &'static str,
    pub goal: Option<f64>,
    pub unit: Unit,
}

const fn row(group: Group, name: &'static str, goal: f64, what: &'static str) -> Row {
    Row {
        group,
        name,
        what,
        goal: if goal > 0.0 { Some(goal) } else { None },
        unit: Instructions,
    }
}

const fn figure(name: &'static str, unit: Unit, goal: f64, what: &'static str) -> Row {
    Row {
        unit,
        ..row(Group::Macro, name, goal, what)
    }
}

use Group::{Control, Domains, Log, One, Scale, Two};
use Unit::{Bytes, Count, Instructions, Kib, Microseconds};

pub const ROWS: &[Row] = &[
    row(One, "hypercall_xen_version", 0.35, "the null hypercall"),
    row(One, "hypercall_unknown", 0.30, "a number that is none"),
    row(
        One,
        "hypercall_get_features",
        0.30,
        "copies 8 bytes in and out",
    ),
    row(One, "hypercall_sched_yield", 0.10, "nobody else to run"),
    row(One, "console_write_64", 0.50, "64 characters to the UART"),
    row(One, "psci_version", 0.30, "PSCI by HVC"),
    row(One, "gicd_read_typer", 0.30, "GICD_TYPER"),
    row(One, "gicd_read_isenabler0", 0.30, "GICD_ISENABLER0"),
    row(One, "gicd_read_ipriority", 0.30, "GICD_IPRIORITYR5"),
    row(One, "gicd_write_isenabler0_noop", 0.35, "writes 0"),
    row(One, "gicd_write_ipriority_byte", 0.35, "one byte"),
    row(
        One,
        "gicd_spi_disable_enable_pair",
        0.35,
        "a physical line off and on",
    ),
    row(One, "cp15_actlr_read", 0.35, "a trapped cp15 read"),
    row(
        One,
        "sgi_self_masked_pending",
        0.35,
        "SGI that is pending already",
    ),
    row(
        One,
        "sgi_self_taken",
        0.35,
        "SGI to oneself, to its handler's end",
    ),
    row(
        One,
        "vtimer_expired_taken",
        0.40,
        "virtual timer set to the past, to its handler's end",
    ),
    row(
        One,
        "vtimer_latency_running_32us",
        0.35,
        "deadline to handler, running",
    ),
    row(
        One,
        "vtimer_latency_wfi_32us",
        0.10,
        "deadline to handler, in WFI",
    ),
    row(One, "vtimer_latency_wfi_1ms", 0.20, "the same, 1 ms ahead"),
    row(
        One,
        "vtimer_latency_sched_block_1ms",
        0.20,
        "the same, SCHEDOP_block",
    ),
    row(
        One,
        "wfi_irq_pending_masked",
        0.35,
        "WFI with an SGI pending, to its handler's end",
    ),
    row(
        One,
        "evtchn_send_self_taken",
        0.35,
        "event to oneself, to its handler's end",
    ),
    row(One, "evtchn_send_masked", 0.35, "event on a masked port"),
    row(
        One,
        "evtchn_send_already_pending",
        0.35,
        "event that is pending already",
    ),
    row(
        One,
        "evtchn_bind_close_ipi",
        0.40,
        "a port bound and closed",
    ),
    row(
        One,
        "add_to_physmap_gnttab",
        0.40,
        "a grant frame that is mapped already (refused)",
    ),
    row(
        One,
        "remove_add_to_physmap_gnttab",
        0.40,
        "a grant frame out of the map and in again",
    ),
    row(One, "grant_map_unmap", 0.35, "own grant, map and unmap"),
    row(One, "grant_copy_4096", 0.40, "own grant, a page copied"),
    row(One, "grant_copy_64", 0.30, "own grant, 64 bytes copied"),
    row(
        One,
        "mem_decrease_populate_4k",
        0.50,
        "dom0's own page out and in",
    ),
    row(One, "mem_decrease_2m", 0.25, "dom0's own 2 MiB out and in"),
    row(
        One,
        "stage2_fault_injected_abort",
        0.40,
        "load from a hole, to the abort handler",
    ),
    row(
        One,
        "device_interrupt_taken",
        0.35,
        "virtio device notified, its interrupt taken and ended",
    ),
    row(
        Two,
        "ipi_sgi_pingpong_wfi",
        0.20,
        "SGI there and back, waiting by WFI",
    ),
    row(
        Two,
        "ipi_sgi_pingpong_block",
        0.20,
        "the same, SCHEDOP_block",
    ),
    row(
        Two,
        "evtchn_pingpong_wfi",
        0.20,
        "event there and back, waiting by WFI",
    ),
    row(
        Two,
        "evtchn_pingpong_block",
        0.20,
        "the same, SCHEDOP_block",
    ),
    row(
        Two,
        "yield_to_other_pair",
        0.20,
        "yield there and back: two switches",
    ),
    row(
        Two,
        "yield_to_other_pair_vfp",
        0.20,
        "the same, both use VFP registers in between",
    ),
    row(
        Domains,
        "evtchn_pingpong_domains",
        0.20,
        "event to a domU and back, both wait by WFI",
    ),
    row(
        Domains,
        "foreign_map_unmap",
        0.40,
        "a page of a domU mapped in dom0 and unmapped",
    ),
    row(
        Domains,
        "grant_map_unmap_domu",
        0.35,
        "a domU's grant, map and unmap",
    ),
    row(
        Domains,
        "grant_copy_4096_domu",
        0.40,
        "a domU's grant, a page copied",
    ),
    row(
        Domains,
        "mem_populate_decrease_4k_domu",
        0.50,
        "a page given to a domU (zeroed) and taken",
    ),
    row(
        Domains,
        "mem_populate_decrease_2m_domu",
        0.50,
        "2 MiB given to a domU (zeroed) and taken",
    ),
    row(
        Domains,
        "domain_create_destroy",
        0.50,
        "a domU of 2 MiB made and destroyed",
    ),
    row(
        Log,
        "log_dirty_write_4k",
        0.0,
        "a domU's first write to a page since the log was read",
    ),
    row(
        Log,
        "log_dirty_write_2m",
        0.0,
        "its first write to 2 MiB, which become 512 pages",
    ),
    row(
        Log,
        "log_dirty_off_write_4k",
        0.0,
        "the same write with the log off again",
    ),
    row(Control, "empty_loop", 1.0, "subtracted from the other rows"),
    row(Control, "cp15_idpfr0_read", 1.0, "not trapped"),
    row(Control, "cp15_cntpct_read", 1.0, "not trapped"),
    row(
        Control,
        "touch_16MiB_4k_stride",
        1.0,
        "4,096 loads from 4,096 pages",
    ),
    row(Scale, "evtchn_send_self_taken_with_1", 0.0, "with 1 domU"),
    row(Scale, "evtchn_send_self_taken_with_10", 0.0, "with 10"),
    row(Scale, "evtchn_send_self_taken_with_100", 0.0, "with 100"),
    row(
        Scale,
        "hypercall_sched_yield_with_1",
        0.0,
        "nobody else to run, with 1 domU",
    ),
    row(Scale, "hypercall_sched_yield_with_10", 0.0, "with 10"),
    row(Scale, "hypercall_sched_yield_with_100", 0.0, "with 100"),
    row(
        Scale,
        "vtimer_latency_wfi_1ms_with_1",
        0.0,
        "deadline to handler, with 1 domU",
    ),
    row(Scale, "vtimer_latency_wfi_1ms_with_10", 0.0, "with 10"),
    row(Scale, "vtimer_latency_wfi_1ms_with_100", 0.0, "with 100"),
    row(Scale, "evtchn_pingpong_domains_with_1", 0.0, "with 1 domU"),
    row(
        Scale,
        "evtchn_pingpong_domains_with_10",
        0.0,
        "with the last of 10",
    ),
    row(
        Scale,
        "evtchn_pingpong_domains_with_100",
        0.0,
        "with the last of 100",
    ),
    row(
        Scale,
        "grant_map_unmap_with_1",
        0.0,
        "own grant, with 1 domU",
    ),
    row(Scale, "grant_map_unmap_with_10", 0.0, "with 10"),
    row(Scale, "grant_map_unmap_with_100", 0.0, "with 100"),
    row(Scale, "foreign_map_unmap_with_1", 0.0, "with 1 domU"),
    row(Scale, "foreign_map_unmap_with_10", 0.0, "with 10"),
    row(Scale, "foreign_map_unmap_with_100", 0.0, "with 100"),
    row(
        Scale,
        "domain_create_destroy_with_1",
        0.0,
        "one more than 1 domU",
    ),
    row(
        Scale,
        "domain_create_destroy_with_10",
        0.0,
        "one more than 10",
    ),
    row(
        Scale,
        "domain_create_destroy_with_100",
        0.0,
        "one more than 100",
    ),
    Row {
        group: Scale,
        unit: Count,
        ..figure(
            "domains_in_memory",
            Count,
            0.0,
            "domUs of 2 MiB in 1 GiB, dom0 has 256 MiB",
        )
    },
    figure(
        "reset_to_guest",
        Instructions,
        0.25,
        "reset to dom0's first instruction",
    ),
    figure(
        "kernel_to_init",
        Microseconds,
        1.0,
        "dom0's kernel, from its clock's zero to /init",
    ),
    figure(
        "reset_to_init",
        Microseconds,
        0.0,
        "both: reset to dom0's /init",
    ),
    figure(
        "fork_exec_200",
        Microseconds,
        1.0,
        "dom0: 200 times fork and exec of busybox",
    ),
    figure(
        "dd_100k",
        Microseconds,
        1.0,
        "dom0: 100,000 times 512 bytes from zero to null",
    ),
    figure(
        "unpack_and_build",
        Microseconds,
        1.0,
        "dom0: half a MiB unpacked, a process for each of its 32 files",
    ),
    figure(
        "hackbench",
        Microseconds,
        1.0,
        "dom0: hackbench: 40 processes, 40,000 messages",
    ),
    figure(
        "fio_read_1m",
        Microseconds,
        1.0,
        "dom0: fio: 16 MiB read from a disk in memory, 1 MiB each",
    ),
    figure(
        "fio_read_4k",
        Microseconds,
        1.0,
        "dom0: fio: the same, 4 KiB each in random order",
    ),
    figure(
        "fio_write_1m",
        Microseconds,
        1.0,
        "dom0: fio: 16 MiB written, 1 MiB each",
    ),
    figure(
        "fio_write_4k",
        Microseconds,
        1.0,
        "dom0: fio: the same, 4 KiB each in random order",
    ),
    figure(
        "xl_create",
        Microseconds,
        0.0,
        "xl create of a domU with 64 MiB",
    ),
    figure(
        "xl_create_to_init",
        Microseconds,
        0.0,
        "the same, to the line that its start prints",
    ),
    figure("xl_destroy", Microseconds, 0.0, "xl destroy"),
    figure(
        "domu_fork_exec_200",
        Microseconds,
        1.0,
        "domU: 200 times fork and exec of busybox",
    ),
    figure(
        "domu_dd_100k",
        Microseconds,
        1.0,
        "domU: 100,000 times 512 bytes from zero to null",
    ),
    figure(
        "domu_unpack_and_build",
        Microseconds,
        1.0,
        "domU: half a MiB unpacked, a process for each of its 32 files",
    ),
    figure(
        "domu_hackbench",
        Microseconds,
        1.0,
        "domU: hackbench: 40 processes, 40,000 messages",
    ),
    figure(
        "domu_fio_read_1m",
        Microseconds,
        0.0,
        "domU: fio: 16 MiB read from the PV disk, 1 MiB each",
    ),
    figure(
        "domu_fio_read_4k",
        Microseconds,
        0.0,
        "domU: fio: the same, 4 KiB each in random order",
    ),
    figure(
        "domu_fio_write_1m",
        Microseconds,
        0.0,
        "domU: fio: 16 MiB written, 1 MiB each",
    ),
    figure(
        "domu_fio_write_4k",
        Microseconds,
        0.0,
        "domU: fio: the same, 4 KiB each in random order",
    ),
    figure(
        "domu_ping",
        Microseconds,
        0.0,
        "PV network: ping of the domU by dom0, average of 50",
    ),
    figure(
        "domu_iperf3_send",
        Microseconds,
        0.0,
        "PV network: 32 MiB to dom0 by TCP (iperf3)",
    ),
    figure(
        "domu_iperf3_receive",
        Microseconds,
        0.0,
        "the same, from dom0",
    ),
    figure(
        "memory_kept",
        Kib,
        0.0,
        "RAM kept by the hypervisor, of 2 GiB",
    ),
    figure(
        "memory_per_domu",
        Kib,
        0.0,
        "memory that a domU of 64 MiB takes beyond that",
    ),
    figure("image_size", Bytes, 0.0, "the flat image"),
];

/// Returns whether a row is still measured.
pub fn is_known(name: &str) -> bool {
    ROWS.iter().any(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::ROWS;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        for (index, row) in ROWS.iter().enumerate() {
            let again = ROWS[..index].iter().find(|other| other.name == row.name);
            assert!(again.is_none(), "{}", row.name);
        }
    }
}

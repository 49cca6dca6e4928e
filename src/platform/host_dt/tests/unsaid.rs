//! Facts that trees omit, contradict, or give for unused things: they are substituted or reported.

use super::{changed, error, range};
use crate::platform::testing::VIRT;
use alloc::string::{String, ToString};

#[test]
fn a_maintenance_interrupt_that_is_always_the_same_need_not_be_said() {
    let host = changed(VIRT, &[("interrupts = <1 9 4>;", "")]).unwrap();
    assert_eq!(host.gic.maintenance, 25);
    let other = [
        ("interrupts = <1 9 4>;", ""),
        ("arm,cortex-a15-gic", "qcom,msm-qgic2"),
    ];
    assert!(error(VIRT, &other).contains("no maintenance interrupt"));
}

#[test]
fn the_timers_interrupts_go_by_their_names_where_it_has_some() {
    let order = "<1 13 0x304>, <1 14 0x304>, <1 11 0x304>, <1 10 0x304>";
    let lines = |interrupts: &str| {
        let host = changed(
            VIRT,
            &[(alloc::format!("interrupts = {order}").as_str(), interrupts)],
        );
        host.map(|host| {
            let timer = host.timer;
            [
                timer.secure_physical,
                timer.physical,
                timer.virtual_timer,
                timer.hypervisor,
            ]
        })
    };
    let right = Ok([29, 30, 27, 26]);
    assert_eq!(
        lines(
            "interrupt-names = \"phys\", \"virt\", \"hyp-phys\", \"sec-phys\"; interrupts = <1 14 4>, <1 11 4>, <1 10 4>, <1 13 4>"
        ),
        right
    );
    // Parts of secure software alone may be missing.
    assert_eq!(
        lines(
            "interrupt-names = \"phys\", \"virt\", \"hyp-phys\"; interrupts = <1 14 4>, <1 11 4>, <1 10 4>"
        ),
        right
    );
    let wrong = lines(
        "interrupt-names = \"sec-phys\", \"phys\", \"virt\", \"hyp-phys\"; interrupts = <1 13 4>, <1 14 4>, <1 11 4>, <0 10 4>",
    );
    let line = wrong.unwrap_err().to_string();
    assert!(line.contains("hypervisor timer"), "{line}");
}

#[test]
fn a_bank_too_far_from_the_rest_is_named_and_left_out() {
    let with = |banks: &str| {
        let changes = [("reg = <0 0x40000000 0 0x80000000>;", banks)];
        let host = changed(VIRT, &changes).unwrap();
        (host.ram, host.notes)
    };
    let near = range(0x4000_0000, 0x8000_0000);
    let (ram, notes) = with("reg = <0 0x40000000 0 0x80000000>, <0x80 0 0 0x40000000>;");
    assert_eq!(ram, [near]);
    assert_eq!(
        notes,
        ["BOOT: RAM bank 0x8000000000-0x8040000000 ignored: too far from the rest"]
    );
    // Above 4 GiB is not far, nor is what is many times as large as the rest.
    let (ram, notes) = with("reg = <0 0x40000000 0 0x80000000>, <4 0 1 0>;");
    assert_eq!((ram.len(), notes.len()), (2, 0));
    let (ram, notes) = with("reg = <0 0x10000 0 0x1000>, <0 0x40000000 0 0x80000000>;");
    assert_eq!((ram.len(), notes.len()), (2, 0));
}

#[test]
fn reservations_without_ranges_are_kept_and_named() {
    let node = |inside: &str| {
        alloc::format!(
            "reserved-memory {{ {inside} fw@48000000 {{ reg = <0 0x48000000 0 0x100000>; no-map; }}; }}; gpio-keys {{"
        )
    };
    let fw = [range(0x4800_0000, 0x10_0000)];
    let note =
        "BOOT: /reserved-memory/fw@48000000 is reserved, although /reserved-memory has no ranges";
    let cells = "#address-cells = <2>; #size-cells = <2>;";
    for (inside, notes, hold) in [
        (
            "#address-cells = <2>; #size-cells = <2>; ranges;",
            None,
            true,
        ),
        (cells, Some(note), false),
        ("", Some(note), false),
    ] {
        let host = changed(VIRT, &[("gpio-keys {", &node(inside))]).unwrap();
        assert_eq!(host.firmware_reserved, fw);
        assert!(!host.free_ram().iter().any(|free| free.overlaps(&fw[0])));
        assert_eq!(host.reservations_hold, hold);
        assert_eq!(host.notes.first().map(String::as_str), notes);
    }
    let odd = node("ranges; #address-cells = <2>; #size-cells = <2>;").replace("0x100000>", "0>");
    let host = changed(VIRT, &[("gpio-keys {", &odd)]).unwrap();
    assert_eq!(
        host.notes,
        ["BOOT: /reserved-memory/fw@48000000 has no usable reg, not reserved"]
    );
}

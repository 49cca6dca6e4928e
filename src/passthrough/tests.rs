use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use super::rule::{Catalogue, Standing, Want};
use crate::dom0::selection::HostView;
use crate::error::Errno;
use crate::id::DomId;
use crate::platform::host_dt::HostInfo;
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{VIRT, compile_with, tree};

/// Where devices are added to the sample: in front of its real-time clock.
const PLACE: &str = "pl031@9010000 {";
const ONE: DomId = DomId(1);
const TWO: DomId = DomId(2);

/// Returns the catalogue of QEMU's virt with `nodes` added, and `inside` the real-time clock.
fn catalogue(nodes: &str, inside: &str) -> Catalogue {
    let place = format!("{nodes} {PLACE} {inside}");
    let bytes = compile_with(VIRT, &[(PLACE, &place)]);
    let mut host = HostInfo::parse(&bytes).unwrap();
    for frame in &mut host.gic.frames {
        frame.set_type_register(80 << 16 | 64);
    }
    let console = host.console.clone().ok();
    Catalogue::of(&HostView {
        tree: tree(&bytes),
        host: &host,
        console: console.as_ref(),
        gic_lines: 288,
    })
    .unwrap()
}

/// A marked device: an address, the number of a shared interrupt, and what else there is to say.
fn device(at: u32, line: u32, more: &str) -> String {
    format!(
        "dev@{at:x} {{ compatible = \"arm,pl061\"; reg = < 0 {at:#x} 0 0x1000 >; \
         interrupts = < 0 {line} 4 >; {more} xen,passthrough; }};"
    )
}

fn pages(base: u64, count: u64) -> Want<'static> {
    Want::Pages(PhysRange::new(base, count << 12).unwrap())
}

/// Returns why a device is withheld.
fn withheld(catalogue: &Catalogue, path: &str) -> String {
    match &catalogue.find(path).unwrap().standing {
        Standing::Withheld(why) => why.clone(),
        other => panic!("{path}: {other:?}"),
    }
}

fn refused(catalogue: &mut Catalogue, want: &Want<'_>) -> (Errno, String) {
    let refusal = catalogue.claim(ONE, want, false).unwrap_err();
    (refusal.error, refusal.why)
}

#[test]
fn what_is_marked_is_passed_with_its_interrupt() {
    let mut catalogue = catalogue("", "xen,passthrough;");
    assert_eq!(catalogue.notes().count(), 0);
    assert!(catalogue.claim(ONE, &pages(0x901_0000, 1), false).is_ok());
    assert!(catalogue.claim(ONE, &Want::Line(34), false).is_ok());
    assert!(catalogue.has(ONE, &PhysRange::new(0x901_0000, 0x1000).unwrap()));
    assert!(!catalogue.has(ONE, &PhysRange::new(0x901_0000, 0x2000).unwrap()));
    assert_eq!(catalogue.line_of(ONE, 34).map(|line| line.intid), Some(34));
    assert_eq!(catalogue.line_of(TWO, 34), None);
    let of_one: Vec<_> = catalogue.of_domain(ONE).map(|d| d.path.as_str()).collect();
    assert_eq!(of_one, ["/pl031@9010000"]);
}

#[test]
fn without_a_mark_nothing_is_passed() {
    let (error, why) = refused(&mut catalogue("", ""), &pages(0x901_0000, 1));
    assert_eq!(error, Errno::Perm);
    assert!(
        why.contains("no node of the machine's tree is marked"),
        "{why}"
    );
    let mut other = catalogue(&device(0xc00_0000, 200, ""), "");
    let (error, why) = refused(&mut other, &pages(0x901_0000, 1));
    assert_eq!(error, Errno::Perm);
    assert!(why.contains("/pl031@9010000 is not marked"), "{why}");
    let (_, why) = refused(&mut other, &Want::Line(34));
    assert!(why.contains("/pl031@9010000 is not marked"), "{why}");
    // Between the devices is nothing, and behind the last interrupt neither.
    for want in [pages(0xc00_1000, 1), pages(0xc00_0000, 2), Want::Line(250)] {
        let (error, why) = refused(&mut other, &want);
        assert!(
            error == Errno::Perm && why.contains("no device has"),
            "{why}"
        );
    }
}

#[test]
fn a_device_has_one_owner_until_that_ends() {
    let mut catalogue = catalogue("", "xen,passthrough;");
    let page = pages(0x901_0000, 1);
    assert!(catalogue.claim(ONE, &Want::Line(34), false).is_ok());
    for want in [page, Want::Line(34)] {
        let refusal = catalogue.claim(TWO, &want, false).unwrap_err();
        assert_eq!(refusal.error, Errno::Busy);
        assert!(
            refusal.why.contains("/pl031@9010000 is d1's"),
            "{}",
            refusal.why
        );
    }
    catalogue.forget(TWO);
    assert!(catalogue.claim(TWO, &page, false).is_err());
    catalogue.forget(ONE);
    assert!(catalogue.claim(TWO, &page, false).is_ok());
    assert!(!catalogue.has(ONE, &PhysRange::new(0x901_0000, 0x1000).unwrap()));
}

#[test]
fn devices_that_share_a_page_or_an_interrupt_go_together() {
    let small = |at: u32, line: u32| device(at, line, "").replace("0 0x1000 >", "0 0x100 >");
    let nodes = [
        small(0xc00_0000, 200),
        small(0xc00_0100, 201),
        small(0xc00_2000, 201),
    ];
    let mut catalogue = catalogue(&nodes.concat(), "");
    assert!(catalogue.claim(ONE, &Want::Line(232), false).is_ok());
    let page = pages(0xc00_0000, 1);
    assert_eq!(
        catalogue.claim(TWO, &page, false).unwrap_err().error,
        Errno::Busy
    );
    assert!(catalogue.claim(ONE, &page, false).is_ok());
    assert_eq!(catalogue.of_domain(ONE).count(), 2);
    assert!(catalogue.claim(ONE, &Want::Line(233), false).is_ok());
    assert_eq!(catalogue.of_domain(ONE).count(), 3);
}

/// One row for each thing that a marked device must not have in its pages or for an interrupt.
#[test]
fn what_others_have_is_withheld_and_named() {
    let neighbour = "n@c000800 { compatible = \"arm,pl061\"; reg = < 0 0xc000800 0 0x100 >; };";
    let wired = "n@d000000 { compatible = \"arm,pl061\"; reg = < 0 0xd000000 0 0x1000 >; interrupts = < 0 200 4 >; };";
    let with = |at, line, others: &str| device(at, line, "") + others;
    let rows: Vec<(String, &str, &str)> = vec![
        (with(0x4000_0000, 200, ""), "/dev@40000000", "which is RAM"),
        (
            with(0x800_0000, 200, ""),
            "/dev@8000000",
            "which is the GIC's",
        ),
        (
            with(0x900_0000, 200, ""),
            "/dev@9000000",
            "which is the console's",
        ),
        (
            with(0xc00_0000, 200, neighbour),
            "/dev@c000000",
            "/n@c000800's too",
        ),
        (
            with(0xc00_0000, 200, wired),
            "/dev@c000000",
            "interrupt 232 is /n@d000000's too",
        ),
        (
            with(0xc00_0000, 1, ""),
            "/dev@c000000",
            "interrupt 33 is the console's",
        ),
        (
            with(0xc00_0000, 256, ""),
            "/dev@c000000",
            "beyond the GIC's 288 lines",
        ),
        (with(0xc00_0000, 50, ""), "/dev@c000000", "a message's"),
        (
            device(0xc00_0000, 200, "").replace("< 0 200 4 >", "< 1 7 4 >"),
            "/dev@c000000",
            "private to each CPU",
        ),
    ];
    for (nodes, path, expected) in rows {
        let mut catalogue = catalogue(&nodes, "");
        let why = withheld(&catalogue, path);
        assert!(why.contains(expected), "{path}: {why}");
        let note = catalogue.notes().next().unwrap();
        assert!(note.contains(path) && note.contains(&why), "{note}");
        let at = catalogue.find(path).unwrap().pages[0];
        let (error, said) = refused(&mut catalogue, &Want::Pages(at));
        assert!(error == Errno::Perm && said.contains(path), "{said}");
    }
}

#[test]
fn the_hypervisor_s_own_devices_are_withheld_whatever_their_nodes_say() {
    let timer = "t@c000000 { compatible = \"arm,armv7-timer-mem\"; reg = < 0 0xc000000 0 0x1000 >; xen,passthrough; };";
    assert!(withheld(&catalogue(timer, ""), "/t@c000000").contains("the hypervisor's"));
}

#[test]
fn dma_needs_the_word() {
    let unknown = device(0xc00_0000, 200, "").replace("arm,pl061", "acme,dma");
    let with_channel = device(0xc00_0000, 200, "dmas = < 1 2 >;");
    let page = pages(0xc00_0000, 1);
    for nodes in [&unknown, &with_channel] {
        let mut catalogue = catalogue(nodes, "");
        let (error, why) = refused(&mut catalogue, &page);
        assert_eq!(error, Errno::Perm);
        assert!(why.contains("/dev@c000000 may do DMA"), "{why}");
        let claimed = catalogue.claim(ONE, &page, true).unwrap();
        assert_eq!(claimed.with_dma, ["/dev@c000000"]);
        // It is said once.
        assert!(
            catalogue
                .claim(ONE, &page, true)
                .unwrap()
                .with_dma
                .is_empty()
        );
    }
    let meant = unknown.replace(
        "xen,passthrough;",
        "xen,passthrough; xen,force-assign-without-iommu;",
    );
    let mut catalogue = catalogue(&meant, "");
    let claimed = catalogue.claim(ONE, &page, false).unwrap();
    assert_eq!(claimed.with_dma, ["/dev@c000000"]);
}

#[test]
fn what_is_below_a_marked_node_goes_with_it() {
    let bus = "bus@c000000 { compatible = \"simple-bus\"; #address-cells = < 2 >; #size-cells = < 2 >; ranges; \
               reg = < 0 0xc000000 0 0x1000 >; xen,passthrough; xen,force-assign-without-iommu; \
               child@c000100 { compatible = \"arm,pl061\"; reg = < 0 0xc000100 0 0x100 >; }; };";
    let mut catalogue = catalogue(bus, "");
    assert_eq!(catalogue.notes().count(), 0);
    assert!(catalogue.claim(ONE, &pages(0xc00_0000, 1), false).is_ok());
    assert_eq!(catalogue.of_domain(ONE).count(), 2);
}

#[test]
fn the_interrupts_of_marked_devices_alone_are_kept_for_other_domains() {
    let catalogue = catalogue(&device(0xc00_0000, 100, ""), "");
    assert!(catalogue.is_marked(132));
    // The clock, which is dom0's, and one that no device names.
    assert!(!catalogue.is_marked(34));
    assert!(!catalogue.is_marked(133));
}

//! Parts of domains' trees as people write them, and what is wrong with others.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use dt::Writer;
use proptest::prelude::{any, prop, proptest};

use super::{Partial, Passed};
use crate::domain::guest_map::Layout;
use crate::platform::BootError;
use crate::platform::modules::{Module, ModuleKind};
use crate::platform::partitions::{Config, Enhanced};
use crate::platform::ranges::PhysRange;
use crate::platform::testing::compile;
use crate::platform::tree;

const CLOCK: &str = "clk: clock { compatible = \"fixed-clock\"; #clock-cells = < 0 >; };";
const RTC: &str =
    "compatible = \"arm,pl031\", \"arm,primecell\"; interrupts = < 0 2 4 >; clocks = < &clk >;";
const REG: &str = "xen,reg = < 0 0x9010000 0 0x1000 0 0x4010000 >;";
const PATH: &str = "xen,path = \"/pl031@9010000\";";
const WORD: &str = "xen,force-assign-without-iommu;";

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

fn config() -> Config {
    let kernel = Module {
        kind: ModuleKind::Kernel,
        range: range(0x6000_0000, 0x1000),
        bootargs: None,
        path: String::new(),
    };
    Config {
        uart: true,
        enhanced: Enhanced::WithoutXenstore,
        ..Config::new(64 << 20, 1, kernel)
    }
}

fn layout() -> Layout {
    Layout::new().unwrap()
}

/// Returns the blob of a tree with these cells on its bus, and these nodes below.
fn blob(cells: (u32, u32), nodes: &str) -> Vec<u8> {
    compile(&format!(
        "/dts-v1/; / {{ #address-cells = < 2 >; #size-cells = < 2 >; aliases {{ rtc0 = \"/passthrough/rtc@4010000\"; }}; \
         gic: gic {{ #interrupt-cells = < 3 >; interrupt-controller; }}; other {{ secret; }}; \
         passthrough {{ compatible = \"simple-bus\"; ranges; #address-cells = < {} >; #size-cells = < {} >; {CLOCK} {nodes} }}; }};",
        cells.0, cells.1
    ))
}

fn with<T>(bytes: &[u8], f: impl FnOnce(Partial<'_>) -> T) -> T {
    let size = bytes.len();
    tree::with(bytes, |tree| Ok::<T, BootError>(f(Partial { tree, size }))).unwrap()
}

fn devices_of(cells: (u32, u32), inside: &str) -> Result<Vec<Passed>, String> {
    let bytes = blob(cells, &format!("rtc@4010000 {{ {RTC} {inside} }};"));
    with(&bytes, |partial| {
        partial
            .devices(&config(), &layout())
            .map_err(|why| why.to_string())
    })
}

fn refusal(inside: &str) -> String {
    let refused = devices_of((2, 2), inside).unwrap_err();
    let (node, why) = refused.split_once(": ").unwrap();
    assert_eq!(node, "/passthrough/rtc@4010000");
    why.to_string()
}

#[test]
fn a_device_is_read_in_full() {
    let expected = Passed {
        node: "/passthrough/rtc@4010000".into(),
        host: Some("/pl031@9010000".into()),
        pages: vec![(range(0x901_0000, 0x1000), range(0x401_0000, 0x1000))],
        word: false,
    };
    let devices = devices_of((2, 2), &format!("{REG} {PATH}"));
    assert_eq!(devices, Ok(vec![expected.clone()]));
    // The clock, which has none of the three properties, is none.
    assert_eq!(devices_of((2, 2), WORD).unwrap()[0].pages, []);
    for (cells, reg) in [
        ((1, 1), "xen,reg = < 0x9010000 0x1000 0x4010000 >;"),
        ((2, 1), "xen,reg = < 0 0x9010000 0x1000 0 0x4010000 >;"),
        ((1, 2), "xen,reg = < 0x9010000 0 0x1000 0x4010000 >;"),
    ] {
        let devices = devices_of(cells, &format!("{reg} {PATH}"));
        assert_eq!(devices, Ok(vec![expected.clone()]), "{cells:?}");
    }
}

#[test]
fn one_without_the_other_needs_the_word() {
    let missing = |name| format!("{name} is missing, and xen,force-assign-without-iommu too");
    assert_eq!(refusal(REG), missing("xen,path"));
    assert_eq!(refusal(PATH), missing("xen,reg"));
    let only_pages = devices_of((2, 2), &format!("{REG} {WORD}")).unwrap();
    assert!(only_pages[0].word && only_pages[0].host.is_none());
    let only_interrupts = devices_of((2, 2), &format!("{PATH} {WORD}")).unwrap();
    assert!(only_interrupts[0].pages.is_empty() && only_interrupts[0].host.is_some());
}

#[test]
fn pages_that_cannot_be_are_named() {
    let of = |cells: &str| refusal(&format!("xen,reg = < {cells} >; {PATH}"));
    for odd in [
        "0 0x9010800 0 0x1000 0 0x4010000",
        "0 0x9010000 0 0x800 0 0x4010000",
        "0 0x9010000 0 0x1000 0 0x4010004",
    ] {
        assert!(of(odd).contains("are no whole pages"), "{odd}");
    }
    assert!(of("0 0x9010000 0 0x1000").contains("not entries of 6 cells"));
    for beyond in [
        "0 0x9010000 0 0 0 0x4010000",
        "0x100 0 0 0x1000 0 0x4010000",
    ] {
        assert!(of(beyond).contains("cannot be read"), "{beyond}");
    }
    for (at, what) in [
        ("0x3001000", "the interrupt controller"),
        ("0x3003000", "the interrupt controller"),
        ("0x22000000", "the UART"),
        ("0x38fff000", "the grant table"),
        ("0x39001000", "xenstore's page"),
    ] {
        let why = of(&format!("0 0x9010000 0 0x1000 0 {at}"));
        assert!(why.contains(&format!("is {what} in the domain")), "{why}");
    }
    for cells in [(0, 0), (2, 0), (0, 1), (3, 2)] {
        let refused = devices_of(cells, &format!("{REG} {PATH}")).unwrap_err();
        assert!(refused.contains("cells cannot be"), "{refused}");
    }
}

#[test]
fn without_a_folder_for_devices_there_is_nothing_to_pass() {
    let bytes = compile("/dts-v1/; / { aliases { }; };");
    let refused = with(&bytes, |partial| {
        partial.devices(&config(), &layout()).unwrap_err()
    });
    assert!(refused.to_string().contains("no /passthrough"));
}

#[test]
fn the_domain_sees_all_but_where_its_devices_come_from() {
    let nodes =
        format!("rtc@4010000 {{ {RTC} {REG} {PATH} {WORD} part {{ deep {{ }}; }}; }}; last {{ }};");
    let copy = with(&blob((2, 2), &nodes), |partial| {
        let mut out = vec![0; 4096];
        let mut writer = Writer::new(&mut out, 1024);
        writer.begin("");
        partial.write(&mut writer);
        let length = writer.finish().unwrap();
        out.truncate(length);
        out
    });
    let paths = with(&copy, |partial| {
        let rtc = partial.tree.find("/passthrough/rtc@4010000").unwrap();
        for name in ["xen,reg", "xen,path", "xen,force-assign-without-iommu"] {
            assert!(!rtc.has(name));
        }
        assert_eq!(rtc.cells("interrupts").collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(partial.gic_phandle(), None);
        let all = partial.tree.all();
        all.map(|node| node.path().to_string()).collect::<Vec<_>>()
    });
    let expected = [
        "/",
        "/aliases",
        "/passthrough",
        "/passthrough/clock",
        "/passthrough/rtc@4010000",
        "/passthrough/rtc@4010000/part",
        "/passthrough/rtc@4010000/part/deep",
        "/passthrough/last",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn the_controller_has_the_phandle_of_its_place() {
    with(&blob((2, 2), ""), |partial| {
        let gic = partial.tree.find("/gic").unwrap();
        assert_eq!(partial.gic_phandle(), gic.phandle());
        assert!(partial.gic_phandle().is_some());
    });
}

proptest! {
    #[test]
    fn damaged_trees_are_read_without_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = blob((2, 2), &format!("rtc@4010000 {{ {RTC} {REG} {PATH} }};"));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let size = bytes.len();
        let read = tree::with(&bytes, |tree| {
            let partial = Partial { tree, size };
            let mut out = vec![0; 2 * size];
            let mut writer = Writer::new(&mut out, size);
            partial.write(&mut writer);
            Ok(partial.devices(&config(), &layout()).is_ok())
        });
        let _either = read.is_ok();
    }
}

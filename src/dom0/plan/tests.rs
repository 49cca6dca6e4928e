//! Trees made to be searched for ever: a whole boot of each does a bounded number of steps, and then either says which node
//! takes the time or has read all that there is.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dt::BUDGET;

use super::{Plan, Wish, plan};
use crate::dom0::selection::HostView;
use crate::loader::kernel::KernelImage;
use crate::platform::host_dt::HostInfo;
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{VIRT, compile_with, tree};
use crate::platform::{BootError, console};

/// Steps that readers may ask for in vain on the way to their ends: a few for each node of the largest tree.
const TO_THE_END: u32 = 16 * 16_384;

/// Returns what a boot makes of a tree, and its steps.
fn booted(bytes: &[u8]) -> (u32, Result<Plan, BootError>) {
    let tree = tree(bytes);
    let planned = HostInfo::read_command_lines(tree).and_then(|_| {
        let console = console::find(tree, None).map(|found| found.uart);
        let host = HostInfo::of(tree, &|_| None)?;
        plan(&Wish {
            machine: HostView {
                tree,
                host: &host,
                console: console.as_ref().ok(),
                gic_lines: 1020,
            },
            free: &host.free_ram(),
            grant: PhysRange::new(0x4001_0000, 0x4_0000).unwrap(),
            kernel: &KernelImage {
                offset: 0,
                size: 0x55_0000,
                load: None,
                entry_offset: 0,
            },
            memory: 256 << 20,
            vcpus: 2,
            ext_regions: true,
        })
    });
    (tree.spent(), planned)
}

/// So many pieces of source, by their numbers.
fn pieces(count: u32, piece: impl Fn(u32) -> String) -> String {
    (0..count).map(piece).collect()
}

/// A name, changes of the sample, and how many interrupts dom0 has if the tree is read.
type Kind = (&'static str, Vec<(&'static str, String)>, usize);

/// Returns the interrupts of the sample's devices.
fn interrupts() -> usize {
    booted(&compile_with(VIRT, &[]))
        .1
        .unwrap()
        .devices
        .interrupts
        .len()
}

fn kinds() -> Vec<Kind> {
    const HERE: &str = "gpio-keys {";
    const MODEL: &str = "model = \"linux,dummy-virt\";";
    let all = interrupts();
    let devices = |count: u32, more: &str| {
        pieces(count, |n| {
            format!(
                "n{n} {{ reg = <0 1 0 1>; interrupts = <0 {} 4>; {more} }};",
                200 + n % 24
            )
        })
    };
    let before = |text: String| (HERE, format!("{text} {HERE}"));
    let map = |count: u32| {
        let entries = pieces(count, |n| {
            format!("<0 0 0 {} &gic 0 0 0 {} 4>,", n + 9, 300 + n % 8)
        });
        format!(
            "interrupt-map-mask = <0 0 0 0xffff>; interrupt-map = {entries} <0 0 0 1 &gic 0 0 0 77 4>;"
        )
    };
    Vec::from([
        (
            "many properties of a root that each device asks",
            Vec::from([
                (
                    MODEL,
                    format!("{} {MODEL}", pieces(20_000, |n| format!("p{n}; "))),
                ),
                before(devices(2000, "")),
            ]),
            all + 24,
        ),
        (
            "many ranges of a bus with many devices",
            Vec::from([before(format!(
                "bus {{ #address-cells = <1>; #size-cells = <1>; ranges = {} <0 0 0x70000000 0x1000>; {} }};",
                pieces(2000, |n| format!(
                    "<{} 0 {} 1>,",
                    0x8000_0000 + n,
                    0x7100_0000 + n
                )),
                pieces(1000, |n| format!(
                    "d{n} {{ reg = {} <0 1>; }};",
                    "<0xffffffff 1>,".repeat(20)
                ))
            ))]),
            all,
        ),
        (
            "buses below buses, each with many ranges",
            Vec::from([before(
                pieces(24, |n| {
                    let up = if n == 0 { "0 " } else { "" };
                    let ranges = pieces(400, |m| {
                        format!("<{} {up}{} 1>,", 0x9000_0000 + m, 0x9000_0000 + m)
                    });
                    format!(
                        "b{n} {{ #address-cells = <1>; #size-cells = <1>; ranges = {ranges} <0 {up}0 0x1000>; "
                    )
                }) + &pieces(200, |n| {
                    format!("d{n} {{ reg = {} <0 1>; }};", "<0xffffffff 1>,".repeat(9))
                }) + &"};".repeat(24),
            )]),
            all,
        ),
        (
            "a long map of interrupts that many devices go through",
            Vec::from([before(format!(
                "nexus: nexus {{ #address-cells = <3>; #interrupt-cells = <1>; {} }}; {}",
                map(2000),
                pieces(500, |n| format!(
                    "m{n} {{ interrupt-parent = <&nexus>; interrupts = {} <1>; }};",
                    "<1>,".repeat(20)
                ))
            ))]),
            all + 1,
        ),
        (
            "long lists of interrupts",
            Vec::from([before(pieces(40, |n| {
                let lines = pieces(2000, |m| format!("<0 {} 4>,", 200 + m % 24));
                format!("l{n} {{ interrupts = {lines} <0 200 4>; }};")
            }))]),
            all + 24,
        ),
        (
            "a long list of what a node is compatible with",
            Vec::from([before(pieces(100, |n| {
                format!(
                    "c{n} {{ compatible = {} \"z\"; }};",
                    pieces(300, |m| format!("\"maker,device-{m}\","))
                )
            }))]),
            all,
        ),
        (
            "many regions of many devices",
            Vec::from([before(pieces(200, |n| {
                let regions = pieces(100, |m| {
                    format!("<0 {} 0 1>,", 0x2_0000 + 0x2000 * (n * 100 + m))
                });
                format!("r{n} {{ reg = {regions} <0 0x1000 0 1>; }};")
            }))]),
            all,
        ),
        (
            "as many nodes as there may be, in one another's place for phandles",
            Vec::from([before(pieces(8000, |n| {
                format!(
                    "h{n} {{ phandle = <{}>; interrupts-extended = <&gic 0 {} 4>; }};",
                    0x10_0000 + n * 4096,
                    200 + n % 24
                )
            }))]),
            all + 24,
        ),
    ])
}

#[test]
fn a_tree_made_to_be_searched_takes_bounded_steps_and_is_read_whole_or_refused() {
    for (kind, changes, lines) in kinds() {
        let changes: Vec<(&str, &str)> = changes
            .iter()
            .map(|(from, to)| (*from, to.as_str()))
            .collect();
        let bytes = compile_with(VIRT, &changes);
        let (steps, planned) = booted(&bytes);
        assert!(steps <= BUDGET + TO_THE_END, "{kind}: {steps}");
        match planned {
            Ok(plan) => assert_eq!(plan.devices.interrupts.len(), lines, "{kind}"),
            Err(error) => {
                let line = error.to_string();
                assert!(line.contains("steps, the last at /"), "{kind}: {line}");
                assert!(steps > BUDGET, "{kind}: {steps}");
            }
        }
    }
}

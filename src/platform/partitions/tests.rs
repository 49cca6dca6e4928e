//! Each row of the table in docs/partitions.md, what Xen 4.17 gets wrong, and trees that are damaged.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

mod bindings;

use super::{Config, Enhanced, Partition, find, places, pools};
use crate::platform::host_dt::HostInfo;
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{VIRT, compile, compile_with};
use crate::platform::tree;

/// Where dom0's RAM disk is named in the sample: domains are put before it.
const PLACE: &str = "module@0x54000000 {";
const CELLS: &str = "#address-cells = <2>; #size-cells = <2>;";
const KERNEL: &str = "module@60000000 { compatible = \"multiboot,kernel\", \"multiboot,module\"; \
    reg = <0 0x60000000 0 0x500000>; bootargs = \"console=ttyAMA0\"; };";
const RAMDISK: &str = "module@61000000 { compatible = \"multiboot,ramdisk\", \"multiboot,module\"; \
    reg = <0 0x61000000 0 0x123>; };";

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

/// Returns the machine with these nodes in `/chosen`, beside dom0.
fn host(nodes: &str) -> HostInfo {
    let nodes = format!("{nodes} {PLACE}");
    HostInfo::parse(&compile_with(VIRT, &[(PLACE, &nodes)])).unwrap()
}

/// Returns a domain of these properties and nodes.
fn domain(name: &str, inside: &str) -> String {
    format!("{name} {{ compatible = \"xen,domain\"; {inside} }};")
}

/// Returns what becomes of a domain with the usual properties, and `more`.
fn made(more: &str) -> Result<Config, String> {
    let inside = format!("{CELLS} memory = <0 0x20000>; cpus = <1>; {more} {KERNEL} {RAMDISK}");
    only(&host(&domain("domU0", &inside)))
}

/// Returns what becomes of a domain of exactly these.
fn exactly(inside: &str) -> Result<Config, String> {
    only(&host(&domain("domU0", inside)))
}

fn only(host: &HostInfo) -> Result<Config, String> {
    let [Partition { path, config }] = host.partitions.as_slice() else {
        panic!("{:?}", host.partitions);
    };
    assert_eq!(path, "/chosen/domU0");
    config.clone()
}

fn refusal(inside: &str) -> String {
    exactly(inside).unwrap_err()
}

#[test]
fn a_domain_is_read_in_full() {
    let config = made("vpl011; nr_spis = <64>; xen,domain-p2m-mem-mb = <3>;").unwrap();
    assert_eq!((config.memory, config.vcpus), (128 << 20, 1));
    assert!(config.uart);
    assert_eq!((config.spis, config.table_mib), (Some(64), Some(3)));
    assert_eq!(config.enhanced, Enhanced::No);
    assert_eq!(config.kernel.range, range(0x6000_0000, 0x50_0000));
    assert_eq!(config.kernel.bootargs.as_deref(), Some("console=ttyAMA0"));
    assert_eq!(config.ramdisk.unwrap().range, range(0x6100_0000, 0x123));
}

#[test]
fn what_need_not_be_there_has_defaults() {
    let kernel = KERNEL.replace("bootargs = \"console=ttyAMA0\";", "");
    let config = exactly(&format!("{CELLS} memory = <0 4>; cpus = <8>; {kernel}")).unwrap();
    assert!(!config.uart && config.ramdisk.is_none());
    assert_eq!((config.spis, config.table_mib), (None, None));
    assert_eq!(config.kernel.bootargs, None);
    assert_eq!((config.memory, config.vcpus), (4096, 8));
}

#[test]
fn memory_is_needed_in_kib_and_in_whole_pages() {
    let with = |memory: &str| refusal(&format!("{CELLS} {memory} cpus = <1>; {KERNEL}"));
    assert_eq!(with(""), "memory: missing");
    assert_eq!(with("memory;"), "memory: neither one cell nor two");
    assert_eq!(
        with("memory = <1 2 3>;"),
        "memory: neither one cell nor two"
    );
    assert_eq!(with("memory = <0 0>;"), "memory: 0x0 KiB cannot be");
    let all = "memory = <0xffffffff 0xffffffff>;";
    assert_eq!(with(all), "memory: 0xffffffffffffffff KiB cannot be");
    assert_eq!(
        with("memory = <0 5>;"),
        "memory: 5 KiB are no whole number of pages"
    );
    let one_cell = format!("{CELLS} memory = <0x20000>; cpus = <1>; {KERNEL}");
    assert_eq!(exactly(&one_cell).unwrap().memory, 128 << 20);
}

#[test]
fn cpus_are_needed_and_as_many_as_a_gic_serves() {
    let with = |cpus: &str| refusal(&format!("{CELLS} memory = <0 4>; {cpus} {KERNEL}"));
    assert_eq!(with(""), "cpus: missing");
    assert_eq!(with("cpus = <1 1>;"), "cpus: not one cell");
    assert_eq!(with("cpus = <0>;"), "cpus: 0 is not from 1 to 8");
    assert_eq!(with("cpus = <9>;"), "cpus: 9 is not from 1 to 8");
    assert_eq!(with("cpus = <257>;"), "cpus: 257 is not from 1 to 8");
}

#[test]
fn a_uart_is_there_by_any_value_and_has_an_interrupt() {
    for value in ["vpl011;", "vpl011 = <1>;", "vpl011 = \"pl011\";"] {
        assert!(made(value).unwrap().uart, "{value}");
    }
    assert!(!made("").unwrap().uart);
    assert_eq!(made("vpl011; nr_spis = <0>;").unwrap().spis, Some(1));
    assert_eq!(made("nr_spis = <0>;").unwrap().spis, Some(0));
    let refused = made("nr_spis = <961>;").unwrap_err();
    assert_eq!(refused, "nr_spis: 961 is more than 960");
}

#[test]
fn enhanced_has_three_words_and_needs_dom0_for_xenstore() {
    let with = |value: &str| made(value).map(|config| config.enhanced);
    assert_eq!(with("xen,enhanced;"), Ok(Enhanced::Full));
    assert_eq!(with("xen,enhanced = \"enabled\";"), Ok(Enhanced::Full));
    let without = with("xen,enhanced = \"no-xenstore\";");
    assert_eq!(without, Ok(Enhanced::WithoutXenstore));
    assert_eq!(with("xen,enhanced = \"disabled\";"), Ok(Enhanced::No));
    let unknown = with("xen,enhanced = \"perhaps\";").unwrap_err();
    assert_eq!(unknown, "xen,enhanced: \"perhaps\" is not known");
    let inside = format!("{CELLS} memory = <0 4>; cpus = <1>; xen,enhanced; {KERNEL}");
    let alone = only(&without_dom0(&domain("domU0", &inside))).unwrap_err();
    assert_eq!(
        alone,
        "xen,enhanced: xenstore needs dom0, and there is none"
    );
}

/// Returns the machine with these nodes in `/chosen`, and no module of dom0's.
fn without_dom0(nodes: &str) -> HostInfo {
    let (before, rest) = VIRT.split_once("chosen {").unwrap();
    let (chosen, after) = rest.split_once("module@0x50000000 {").unwrap();
    let (_, after) = after.split_once(PLACE).unwrap();
    let (_, after) = after.split_once("};").unwrap();
    let tree = format!("{before}chosen {{ {chosen} {nodes} {after}");
    HostInfo::parse(&compile(&tree)).unwrap()
}

#[test]
fn a_part_of_its_tree_is_a_third_module() {
    let tree = "compatible = \"multiboot,device-tree\", \"multiboot,module\";";
    let module = format!("module@62000000 {{ {tree} reg = <0 0x62000000 0 0x1000>; }};");
    let config = made(&module).unwrap();
    let devices = config.devices.as_ref().unwrap();
    assert_eq!(devices.range, range(0x6200_0000, 0x1000));
    assert_eq!(config.modules().count(), 3);
}

#[test]
fn nodes_that_are_not_understood_are_named() {
    let inside = format!("{CELLS} memory = <0 4>; cpus = <1>; {KERNEL} other {{ x; }};");
    let nodes = domain("domU0", &inside) + "mem { compatible = \"xen,domain-shared-memory-v1\"; };";
    let host = host(&nodes);
    assert!(only(&host).is_ok());
    let notes: Vec<&str> = host.notes.iter().map(String::as_str).collect();
    assert_eq!(
        notes,
        [
            "BOOT: /chosen/mem (xen,domain-shared-memory-v1) is ignored: dom0 shares memory by grants only",
            "BOOT: /chosen/domU0/other is ignored: it is not understood",
        ]
    );
}

#[test]
fn a_domain_needs_a_kernel_and_uses_the_first() {
    let base = format!("{CELLS} memory = <0 4>; cpus = <1>;");
    assert_eq!(refusal(&base), "no node is its kernel (multiboot,kernel)");
    let second = KERNEL.replace("60000000", "63000000");
    let host = host(&domain("domU0", &format!("{base} {KERNEL} {second}")));
    let config = only(&host).unwrap();
    assert_eq!(config.kernel.range.base(), 0x6000_0000);
    assert!(
        host.notes[0].contains("module@63000000 is not used"),
        "{:?}",
        host.notes
    );
}

#[test]
fn modules_are_read_in_the_domains_cells() {
    let base = "memory = <0 4>; cpus = <1>;";
    for (cells, reg) in [
        (
            "#address-cells = <2>; #size-cells = <2>;",
            "0 0x60000000 0 0x500000",
        ),
        (
            "#address-cells = <2>; #size-cells = <1>;",
            "0 0x60000000 0x500000",
        ),
        (
            "#address-cells = <1>; #size-cells = <1>;",
            "0x60000000 0x500000",
        ),
        // As guest-loader does for dom0's: the root's.
        ("", "0 0x60000000 0 0x500000"),
    ] {
        let kernel = KERNEL.replace("0 0x60000000 0 0x500000", reg);
        let config = exactly(&format!("{cells} {base} {kernel}")).unwrap();
        assert_eq!(
            config.kernel.range,
            range(0x6000_0000, 0x50_0000),
            "{cells}"
        );
    }
    // Xen divided by zero.
    let none = format!("#address-cells = <0>; #size-cells = <0>; {base} {KERNEL}");
    assert_eq!(refusal(&none), "module@60000000: reg cannot be used");
    let short = KERNEL.replace("0 0x60000000 0 0x500000", "0");
    let short = refusal(&format!("{CELLS} {base} {short}"));
    assert_eq!(short, "module@60000000: reg cannot be used");
    let endless = KERNEL.replace(
        "0 0x60000000 0 0x500000",
        "0 0x60000000 0xffffffff 0xffffffff",
    );
    let endless = refusal(&format!("{CELLS} {base} {endless}"));
    assert!(
        endless.starts_with("module@60000000: 0xffffffffffffffff bytes"),
        "{endless}"
    );
}

/// Returns a domain whose kernel and RAM disk are at these addresses.
fn at(name: &str, kernel: &str, ramdisk: &str) -> String {
    let kernel = KERNEL.replace("60000000", kernel);
    let ramdisk = RAMDISK.replace("61000000", ramdisk);
    domain(
        name,
        &format!("{CELLS} memory = <0 4>; cpus = <1>; {kernel} {ramdisk}"),
    )
}

fn outcomes(host: &HostInfo) -> Vec<Result<(), &str>> {
    let outcome = |partition: &'_ Partition| match &partition.config {
        Ok(_) => Ok(()),
        Err(why) => Err(String::leak(why.clone()) as &str),
    };
    host.partitions.iter().map(outcome).collect()
}

#[test]
fn two_nodes_of_one_name_keep_their_own_lines() {
    let other = at("domU0", "63000000", "64000000").replace("ttyAMA0", "hvc0");
    let host = host(&(at("domU0", "60000000", "61000000") + &other));
    let line = |n: usize| {
        host.partitions[n]
            .config
            .as_ref()
            .unwrap()
            .kernel
            .bootargs
            .clone()
    };
    assert_eq!(line(0).as_deref(), Some("console=ttyAMA0"));
    assert_eq!(line(1).as_deref(), Some("console=hvc0"));
}

#[test]
fn one_file_may_serve_several_domains() {
    let host = host(&(at("domU0", "60000000", "61000000") + &at("domU1", "60000000", "61000000")));
    assert_eq!(outcomes(&host), [Ok(()), Ok(())]);
    // It is given back once.
    let pages = host.module_pages();
    let kernels = pages.iter().filter(|range| range.base() == 0x6000_0000);
    assert_eq!(kernels.count(), 1);
}

#[test]
fn modules_that_overlap_or_leave_ram_keep_their_domain_from_being_made() {
    let good = at("domU0", "60000000", "61000000");
    for (kernel, ramdisk, why) in [
        (
            "60001000",
            "64000000",
            "overlaps /chosen/domU0/module@60000000",
        ),
        (
            "63000000",
            "60004000",
            "overlaps /chosen/domU0/module@60000000",
        ),
        // Its own two.
        (
            "63000000",
            "63004000",
            "overlaps /chosen/domU1/module@63000000",
        ),
        // dom0's kernel, and dom0's RAM disk.
        ("50001000", "64000000", "overlaps /chosen/module@0x50000000"),
        ("63000000", "54000000", "overlaps /chosen/module@0x54000000"),
        ("bff00000", "64000000", "is not in RAM"),
        ("30000000", "64000000", "is not in RAM"),
    ] {
        let host = host(&(good.clone() + &at("domU1", kernel, ramdisk)));
        let all = outcomes(&host);
        assert_eq!(all[0], Ok(()));
        assert!(
            all[1].is_err_and(|line| line.contains(why)),
            "{kernel}: {all:?}"
        );
        // Its modules' memory is free.
        let pages = host.module_pages();
        assert!(!pages.iter().any(|range| range.base() == 0x6400_0000));
    }
}

#[test]
fn a_module_over_the_image_or_the_tree_is_found_when_those_are_known() {
    let nodes = at("domU0", "60000000", "61000000") + &at("domU1", "63000000", "64000000");
    let mut host = host(&nodes);
    let (tree, image) = (range(0x6400_0000, 0x1000), range(0x4000_0000, 0x10_0000));
    host.claim(tree, image).unwrap();
    let all = outcomes(&host);
    assert_eq!(all[0], Ok(()));
    assert!(
        all[1].is_err_and(|why| why.contains("overlaps the device tree")),
        "{all:?}"
    );
    let free = |at| {
        host.free_ram()
            .iter()
            .any(|free| free.contains(&range(at, 0x1000)))
    };
    assert!(free(0x6300_0000) && !free(0x6000_0000) && !free(0x6400_0000));
}

#[test]
fn there_are_32_modules_with_dom0s() {
    let all: String = (0..16u64)
        .map(|n| {
            let (kernel, ramdisk) = (0x6000_0000 + n * 0x100_0000, 0x6080_0000 + n * 0x100_0000);
            at(
                &format!("domU{n}"),
                &format!("{kernel:x}"),
                &format!("{ramdisk:x}"),
            )
        })
        .collect();
    let host = host(&all);
    let all = outcomes(&host);
    assert_eq!(all.iter().filter(|outcome| outcome.is_ok()).count(), 15);
    assert!(
        all[15].is_err_and(|why| why.contains("more than 32 modules")),
        "{all:?}"
    );
}

#[test]
fn without_a_kernel_of_dom0s_only_the_domains_are_there() {
    let host = without_dom0(&at("domU0", "60000000", "61000000"));
    assert!(host.kernel().is_err());
    assert_eq!(outcomes(&host), [Ok(())]);
    assert_eq!(host.modules, []);
}

#[test]
fn children_that_are_no_domains_are_none() {
    let deep = format!("outer {{ {} }};", at("inner", "60000000", "61000000"));
    assert_eq!(host(&deep).partitions, []);
    assert_eq!(
        host("domU0 { compatible = \"xen,other\"; };").partitions,
        []
    );
}

/// A number that looks random, the next of them in `state` (xorshift32).
fn next(state: &mut u32) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state as usize
}

/// Reads 10,000 trees that are damaged in the 900 bytes from the first domain's name on; the rest of the tree has tests of
/// its own.
fn read_damaged(good: &[u8]) {
    let name = b"domU0";
    let start = good.windows(name.len()).position(|w| w == name).unwrap();
    let mut state = 0x1234_5678;
    let (mut read, mut made) = (0, 0);
    for _ in 0..10_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=next(&mut state) % 4 {
            let at = start + next(&mut state) % 900;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = match next(&mut state) % 4 {
                    0 => 0,
                    1 => 0xFF,
                    2 => *byte ^ (1 << (next(&mut state) % 8)),
                    _ => next(&mut state) as u8,
                };
            }
        }
        let found = tree::with(&bytes, |tree| {
            let mut found = find(tree, &pools::find(tree), 32, &mut Vec::new());
            places::check(&mut found, &[range(0x4000_0000, 0x8000_0000)], &Vec::new());
            Ok(found)
        });
        for partition in found.into_iter().inspect(|_| read += 1).flatten() {
            match partition.config {
                Ok(_) => made += 1,
                Err(why) => assert!(!why.is_empty() && !why.contains('\n'), "{why:?}"),
            }
        }
    }
    assert!(read > 1000 && made > 1000, "{read} trees, {made} domains");
}

#[test]
fn damaged_trees_are_refused_or_read_without_a_panic() {
    let nodes = at("domU0", "60000000", "61000000") + &at("domU1", "63000000", "64000000");
    let nodes = format!("{nodes} {PLACE}");
    read_damaged(&compile_with(VIRT, &[(PLACE, &nodes)]));
}

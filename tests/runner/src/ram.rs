//! RAM in pieces, and what a boot loader puts into it at its ends, over its banks and above 4 GiB, on QEMU's `virt`: the
//! device tree says less RAM than there is.

use crate::faults::{self, BOOTED, ON_VIRT, Places, RAM_END};
use crate::machine::{INITRD_ADDRESS, KERNEL_ADDRESS, Machine};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, build, dom0, project};

const MIB: u64 = 1 << 20;
/// Where RAM begins on `virt`.
const RAM: u64 = 0x4000_0000;
const FOUR_GIB: u64 = 1 << 32;

/// RAM, and the places of things in it.
pub struct Layout {
    pub name: &'static str,
    /// QEMU's RAM.
    memory_mib: u32,
    /// The banks that the tree names: address and size.
    banks: fn() -> Vec<(u64, u64)>,
    kernel: u64,
    initrd: u64,
    tree: Tree,
    /// The size of dom0's RAM, in MiB.
    dom0_mib: u32,
    /// Patterns on lines that must follow one another.
    says: &'static [&'static str],
}

/// Where the device tree is.
enum Tree {
    Usual,
    /// Its last page is that of RAM.
    AtTheEnd,
}

const ONE_GIB: Layout = Layout {
    name: "",
    memory_mib: 1024,
    banks: || vec![(RAM, 1024 * MIB)],
    kernel: KERNEL_ADDRESS as u64,
    initrd: INITRD_ADDRESS as u64,
    tree: Tree::Usual,
    dom0_mib: 256,
    says: &[],
};

pub static LAYOUTS: [Layout; 7] = [
    Layout {
        name: "in 32 banks",
        memory_mib: 2048,
        banks: thirty_two_banks,
        dom0_mib: 512,
        says: &[
            "RAM: 0000000086801000 - 00000000877fdfff",
            "BANK[20]",
            dom0::UP,
        ],
        ..ONE_GIB
    },
    Layout {
        name: "mostly above 4 GiB",
        memory_mib: 5120,
        banks: || vec![(RAM, 448 * MIB), (FOUR_GIB, 1024 * MIB)],
        dom0_mib: 1024,
        says: &["] 0x100000000-0x", "/1048576K available", dom0::UP],
        ..ONE_GIB
    },
    Layout {
        name: "with modules above 4 GiB",
        memory_mib: 3840,
        banks: || vec![(RAM, 3840 * MIB)],
        kernel: FOUR_GIB + 0x1000_0000,
        initrd: FOUR_GIB + 0x1fff_f000,
        says: &[
            "MODULE[0]: 000000011ffff000 - * ramdisk",
            "MODULE[1]: 0000000110000000 - * kernel",
            dom0::UP,
        ],
        ..ONE_GIB
    },
    Layout {
        name: "with the tree and the RAM disk at its end",
        banks: || vec![(RAM + 0x1000, 1024 * MIB - 0x1000)],
        initrd: 0x7f00_0000,
        tree: Tree::AtTheEnd,
        says: &[
            "RAM: 0000000040001000 - 000000007fffffff",
            "MODULE[0]: 000000007f000000 - * ramdisk",
            BOOTED,
        ],
        ..ONE_GIB
    },
    Layout {
        name: "in two banks that touch in the RAM disk",
        banks: || {
            let first = 0x1430_0000;
            vec![(RAM, first), (RAM + first, 1024 * MIB - first)]
        },
        says: &["RAM: 0000000040000000 - 000000007fffffff", BOOTED],
        ..ONE_GIB
    },
    Layout {
        name: "with a hole in the RAM disk",
        banks: || {
            let first = 0x1430_0000;
            vec![(RAM, first), (RAM + first + 0x1000, 512 * MIB)]
        },
        says: &["ramdisk module * at 0x54000000-* is not in RAM"],
        ..ONE_GIB
    },
    Layout {
        name: "above 4 GiB alone",
        memory_mib: 5120,
        banks: || vec![(FOUR_GIB, 1024 * MIB)],
        says: &["BOOT: RAM begins at 0x100000000; images start below 4 GiB"],
        ..ONE_GIB
    },
];

/// Returns one bank with room for a kernel, and 31 of 16 MiB with holes between them; every second one does not begin or end
/// at a block of 2 MiB.
fn thirty_two_banks() -> Vec<(u64, u64)> {
    const FIRST: u64 = 384 * MIB;
    let small = |n: u64| match n % 2 {
        0 => (RAM + FIRST + n * 24 * MIB, 16 * MIB),
        _ => (RAM + FIRST + n * 24 * MIB + 0x1000, 16 * MIB - 0x3000),
    };
    [(RAM, FIRST)]
        .into_iter()
        .chain((1..32).map(small))
        .collect()
}

/// Boots with that RAM.
pub fn test(layout: &Layout, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("ram")?;
    let folder = folder.path();
    let options = Options {
        memory_mib: layout.memory_mib,
        highmem: layout.memory_mib > 3072,
        ..options.clone()
    };
    let mut machine = Machine::new(&options)?;
    machine.append += &format!(" dom0_mem={}M", layout.dom0_mib);
    dom0::give_watchdogs_patience(&mut machine);
    let source = edited(&faults::tree_source(&machine, folder)?, layout)?;
    let blob = faults::doctored(&source, folder)?;
    let tree = match layout.tree {
        Tree::Usual => ON_VIRT.tree,
        Tree::AtTheEnd => RAM_END - (blob.len() as u32).next_multiple_of(0x1000),
    };
    let places = Places { tree, ..ON_VIRT };
    let modules = [&machine.kernel, &machine.initrd].into_iter().flatten();
    let modules = modules.cloned().zip([layout.kernel, layout.initrd]);
    let loader = faults::loader(tree);
    machine.start = faults::raw_start_with(&machine, &places, modules, &blob, &loader, folder)?;
    let mut session = Session::start(&machine, echo)?;
    for line in layout.says {
        session.expect(line, options.timeout * dom0::LONGEST_CHECK)?;
    }
    Ok(())
}

/// Puts the layout into the source of QEMU's tree.
fn edited(source: &str, layout: &Layout) -> Result<String> {
    let banks = (layout.banks)().into_iter();
    let banks: Vec<_> = banks
        .map(|(at, size)| format!("<{}>", cells(at, size)))
        .collect();
    let mut source = with_reg(source, "memory@", &banks.join(", "))?;
    for (name, at, file) in [
        ("module@0x50000000", layout.kernel, project::dom0_kernel()?),
        ("module@0x54000000", layout.initrd, project::dom0_initrd()?),
    ] {
        let size = build::read(&file)?.len() as u64;
        source = with_reg(&source, name, &format!("<{}>", cells(at, size)))?;
    }
    Ok(source)
}

/// Returns a `reg` of two cells each.
fn cells(at: u64, size: u64) -> String {
    let [at, size] = [at, size].map(|value| format!("{:#x} {:#x}", value >> 32, value as u32));
    format!("{at} {size}")
}

/// Gives the node whose name begins with `name` another `reg`.
fn with_reg(source: &str, name: &str, value: &str) -> Result<String> {
    let (start, end) = faults::node(source, name)?;
    let old = &source[start..end];
    let (before, rest) = old.split_once("reg = ").ok_or("a node has no reg")?;
    let (_, after) = rest.split_once(';').ok_or("a property does not end")?;
    Ok([
        &source[..start],
        before,
        "reg = ",
        value,
        ";",
        after,
        &source[end..],
    ]
    .concat())
}

#[cfg(test)]
mod tests {
    use super::{LAYOUTS, cells, thirty_two_banks, with_reg};

    #[test]
    fn no_bank_is_in_another_and_all_are_in_the_machine() {
        assert_eq!(thirty_two_banks().len(), 32);
        for layout in &LAYOUTS {
            let banks = (layout.banks)();
            let end = super::RAM + u64::from(layout.memory_mib) * super::MIB;
            for pair in banks.windows(2) {
                assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{}", layout.name);
            }
            assert!(
                banks.iter().all(|(at, size)| at + size <= end),
                "{}",
                layout.name
            );
        }
    }

    #[test]
    fn one_node_gets_another_place() {
        let source = "memory@1 { reg = <1>; }; module@2 { reg = <0 2>; a; };";
        assert_eq!(
            with_reg(source, "module@", &format!("<{}>", cells(0x1_2000_0000, 3))).unwrap(),
            "memory@1 { reg = <1>; }; module@2 { reg = <0x1 0x20000000 0x0 0x3>; a; };"
        );
        assert!(with_reg(source, "none", "<1>").is_err());
    }
}

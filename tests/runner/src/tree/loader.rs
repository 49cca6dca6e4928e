//! Adds to a board's device tree as a boot loader does: RAM, and boot modules.

use dt::{Blob, Node, Tree, Writer};
use krypton::platform::host_dt::HostInfo;
use krypton::platform::ranges::PhysRange;
use krypton::platform::tree;

use crate::Result;

/// RAM as a person says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    /// Where it begins; `None` is where the tree's memory node begins.
    pub base: Option<u64>,
    /// Bytes.
    pub size: u64,
}

/// A tree as the hypervisor finds it, and where things are.
pub struct Loaded {
    pub bytes: Vec<u8>,
    pub image: PhysRange,
    pub tree: PhysRange,
    /// Facts that were made up, a line each.
    pub assumed: Vec<String>,
}

const MIB: u64 = 1 << 20;
/// Room of the image, the tree, a kernel and a RAM disk, one behind the other, as large as Debian's.
const IMAGE: u64 = 2 * MIB;
const TREE: u64 = 2 * MIB;
const KERNEL: u64 = 6 * MIB;
const RAMDISK: u64 = 16 * MIB;
/// Bytes that the additions to a tree take at most.
const ROOM: usize = 1 << 16;

/// Reads `BASE:SIZE` or `SIZE`, in MiB or with a letter behind.
pub fn ram(text: &str) -> Result<Ram> {
    let wrong = || format!("\"{text}\" is no RAM: say 1024, 2G or 0x40000000:1G");
    let (base, size) = match text.split_once(':') {
        Some((base, size)) => (Some(number(base).ok_or_else(wrong)?), size),
        None => (None, text),
    };
    let (digits, unit) = match size.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024 * MIB),
        None => (size.trim_end_matches(['M', 'm']), MIB),
    };
    let size = number(digits).and_then(|n| n.checked_mul(unit));
    match size.filter(|size| *size > 0) {
        Some(size) => Ok(Ram { base, size }),
        None => Err(wrong()),
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Differences from the board's own tree.
#[derive(Default)]
struct Additions<'a> {
    ram: Option<PhysRange>,
    modules: &'a [(&'static str, PhysRange)],
    /// Words for the hypervisor, where the tree has none.
    words: &'a str,
}

/// Adds what is missing.
pub fn load(bytes: &[u8], ram: Option<Ram>, words: &str) -> Result<Loaded> {
    let mut assumed = Vec::new();
    let bank = match ram {
        Some(ram) => Some(bank_of(bytes, ram)?),
        None if says_ram(bytes)? => None,
        None => return Err("the tree says no RAM: give it as 0x40000000:1G".into()),
    };
    let additions = Additions {
        ram: bank,
        ..Additions::default()
    };
    let with_ram = rewritten(bytes, &additions)?;
    let host = HostInfo::parse(&with_ram).map_err(|error| error.to_string())?;
    let room = IMAGE + TREE + KERNEL + RAMDISK;
    let place = host.free_ram().into_iter().find_map(|free| {
        let start = free.base().next_multiple_of(IMAGE);
        PhysRange::new(start, room).filter(|place| free.contains(place))
    });
    let place = place.ok_or("no free RAM for image, device tree, kernel and RAM disk")?;
    let mut at = place.base();
    let mut next = |size| {
        at += size;
        PhysRange::new(at - size, size).ok_or("beyond 40 address bits")
    };
    let (image, tree) = (next(IMAGE)?, next(TREE)?);
    let mut modules = Vec::new();
    if host.modules.is_empty() {
        modules.push(("multiboot,kernel", next(KERNEL)?));
        modules.push(("multiboot,ramdisk", next(RAMDISK)?));
        assumed.push(format!(
            "a kernel of {} MiB and a RAM disk of {} MiB, as the tree names no boot modules",
            KERNEL / MIB,
            RAMDISK / MIB
        ));
    }
    assumed.push(format!("Krypton at {image}, the device tree at {tree}"));
    let additions = Additions {
        ram: bank,
        modules: &modules,
        words,
    };
    Ok(Loaded {
        bytes: rewritten(bytes, &additions)?,
        image,
        tree,
        assumed,
    })
}

/// Returns the bank that a person means.
fn bank_of(bytes: &[u8], ram: Ram) -> Result<PhysRange> {
    with_tree(bytes, |tree| {
        let of_tree = tree.all().filter(is_memory).find_map(|n| n.reg().next());
        let base = ram.base.or(of_tree.map(|reg| reg.address));
        let base =
            base.ok_or("the tree does not say where RAM begins: give it as 0x40000000:1G")?;
        PhysRange::new(base, ram.size).ok_or_else(|| "such RAM cannot be".into())
    })
}

fn says_ram(bytes: &[u8]) -> Result<bool> {
    with_tree(bytes, |tree| {
        let mut banks = tree.all().filter(is_memory).flat_map(|node| node.reg());
        Ok(banks.any(|bank| bank.size > 0))
    })
}

/// Does something with the tree in a blob.
pub fn with_tree<T>(bytes: &[u8], f: impl FnOnce(&Tree<'_>) -> Result<T>) -> Result<T> {
    let blob = Blob::check(bytes).map_err(|error| error.to_string())?;
    let mut entries = tree::entries(&blob).map_err(|error| error.to_string())?;
    f(&tree::read(blob, &mut entries).map_err(|error| error.to_string())?)
}

pub fn is_memory(node: &Node<'_>) -> bool {
    node.is_type("memory")
        || node.base_name() == "memory"
            && !node.has("compatible")
            && node.path().to_string().len() < 24
}

fn rewritten(bytes: &[u8], additions: &Additions<'_>) -> Result<Vec<u8>> {
    with_tree(bytes, |tree| {
        let mut blob = vec![0; 2 * (bytes.len() + ROOM)];
        let mut out = Writer::new(&mut blob, bytes.len() + ROOM);
        for (address, size) in tree.blob().reserved() {
            out.reserve(address, size);
        }
        copy(&tree.root(), &mut out, additions);
        let length = out.finish().ok_or("the tree grows too much")?;
        blob.truncate(length);
        Ok(blob)
    })
}

fn copy(node: &Node<'_>, out: &mut Writer<'_>, additions: &Additions<'_>) {
    if additions.ram.is_some() && is_memory(node) {
        return;
    }
    let is_chosen = node.path() == "/chosen";
    out.begin(node.name());
    for (name, value) in node.properties() {
        let anew = is_chosen
            && !additions.modules.is_empty()
            && matches!(name, "#address-cells" | "#size-cells");
        if !anew {
            out.property(name, value);
        }
    }
    if is_chosen {
        add_properties(node, out, additions);
    }
    for child in node.children() {
        copy(&child, out, additions);
    }
    if is_chosen {
        add_modules(out, additions);
    }
    if node.parent().is_none() {
        add_to_root(node, out, additions);
    }
    out.end();
}

fn add_to_root(root: &Node<'_>, out: &mut Writer<'_>, additions: &Additions<'_>) {
    if let Some(ram) = additions.ram {
        let mut cells = Vec::new();
        for (number, count) in [
            (ram.base(), root.address_cells()),
            (ram.size(), root.size_cells()),
        ] {
            if count > 1 {
                cells.push((number >> 32) as u32);
            }
            cells.push(number as u32);
        }
        out.begin(&format!("memory@{:x}", ram.base()));
        out.string("device_type", "memory");
        out.cells("reg", &cells);
        out.end();
    }
    if root.children().all(|child| child.name() != "chosen") {
        out.begin("chosen");
        add_properties(root, out, additions);
        add_modules(out, additions);
        out.end();
    }
}

fn add_properties(chosen: &Node<'_>, out: &mut Writer<'_>, additions: &Additions<'_>) {
    if !additions.modules.is_empty() {
        out.cells("#address-cells", &[2]);
        out.cells("#size-cells", &[2]);
    }
    if !additions.words.is_empty() && !chosen.has("xen,xen-bootargs") {
        out.string("xen,xen-bootargs", additions.words);
    }
}

fn add_modules(out: &mut Writer<'_>, additions: &Additions<'_>) {
    for (kind, range) in additions.modules {
        let cells = [range.base(), range.size()];
        let cells = cells.map(|number| [(number >> 32) as u32, number as u32]);
        out.begin(&format!("module@{:x}", range.base()));
        out.strings("compatible", &[*kind, "multiboot,module"]);
        out.cells("reg", cells.as_flattened());
        out.end();
    }
}

#[cfg(test)]
mod tests {
    use super::{Ram, ram};

    #[test]
    fn ram_is_said_in_mib_or_with_a_letter_and_where_it_begins() {
        let of = |base, size: u64| {
            Ok(Ram {
                base,
                size: size << 20,
            })
        };
        assert_eq!(ram("512"), of(None, 512));
        assert_eq!(ram("512M"), of(None, 512));
        assert_eq!(ram("2G"), of(None, 2048));
        assert_eq!(ram("0x40000000:1G"), of(Some(0x4000_0000), 1024));
        for wrong in ["", "x", "0", "1T", "z:1G", "0x40000000:"] {
            assert!(ram(wrong).is_err(), "{wrong}");
        }
    }
}

use dt::Blob;
use fdt::Fdt;
use vm_fdt::{FdtReserveEntry, FdtWriter};

use super::{Kind, Module, Refused, copy_room, has_modules, with_modules};

const OPTIONS: Option<&[u8]> = Some(b"loglvl=all");

const KERNEL: Module<'_> = Module {
    kind: Kind::Kernel,
    address: 0x7d78_0000,
    size: 0x54_5200,
    arguments: Some(b"console=hvc0"),
};
const RAMDISK: Module<'_> = Module {
    kind: Kind::Ramdisk,
    address: 0x7000_1000,
    size: 7,
    arguments: None,
};

/// Returns a tree with a memory node, after which `more` adds nodes.
fn tree(more: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    let reserved = FdtReserveEntry::new(0x4000_0000, 0x1000).expect("a range");
    let mut tree = FdtWriter::new_with_mem_reserv(&[reserved]).expect("a writer");
    let root = tree.begin_node("").expect("a node");
    tree.property_u32("#address-cells", 2).expect("a property");
    tree.property_u32("#size-cells", 2).expect("a property");
    let memory = tree.begin_node("memory@40000000").expect("a node");
    tree.property_array_u64("reg", &[0x4000_0000, 0x4000_0000])
        .expect("a property");
    tree.end_node(memory).expect("an end");
    more(&mut tree);
    tree.end_node(root).expect("an end");
    tree.finish().expect("a tree")
}

fn chosen(more: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    tree(|tree| {
        let chosen = tree.begin_node("chosen").expect("a node");
        tree.property_string("stdout-path", "/uart")
            .expect("a property");
        more(tree);
        tree.end_node(chosen).expect("an end");
    })
}

fn check(tree: &[u8]) -> Blob<'_> {
    Blob::check(tree).expect("a good tree")
}

fn copy(tree: &[u8], modules: &[Option<Module<'_>>]) -> Result<Vec<u8>, Refused> {
    let tree = check(tree);
    let mut out = vec![0xaa; copy_room(&tree, OPTIONS, modules)];
    let length = with_modules(&tree, OPTIONS, modules, &mut out)?;
    out.truncate(length);
    Ok(out)
}

fn edited(tree: &[u8]) -> Vec<u8> {
    copy(tree, &[Some(KERNEL), Some(RAMDISK)]).expect("a copy")
}

fn text<'a>(tree: &Fdt<'a>, node: &str, property: &str) -> Option<&'a str> {
    tree.find_node(node)?.property(property)?.as_str()
}

fn reg(tree: &Fdt<'_>, node: &str) -> Vec<u8> {
    let node = tree.find_node(node).expect("the module");
    node.property("reg").expect("its place").value.to_vec()
}

#[test]
fn the_copy_has_the_modules_and_all_that_was_there() {
    let source = chosen(|_| ());
    let copy = edited(&source);
    let copy = Fdt::new(&copy).expect("a tree");
    assert_eq!(text(&copy, "/chosen", "stdout-path"), Some("/uart"));
    assert_eq!(
        text(&copy, "/chosen", "xen,xen-bootargs"),
        Some("loglvl=all")
    );
    assert_eq!(
        text(&copy, "/chosen/module@7d780000", "bootargs"),
        Some("console=hvc0")
    );
    assert_eq!(
        reg(&copy, "/chosen/module@7d780000"),
        [0, 0, 0, 0, 0x7d, 0x78, 0, 0, 0, 0, 0, 0, 0, 0x54, 0x52, 0]
    );
    assert_eq!(text(&copy, "/chosen/module@70001000", "bootargs"), None);
    let kinds = copy
        .find_node("/chosen/module@70001000")
        .and_then(|node| node.compatible());
    let kinds: Vec<_> = kinds.expect("a kind").all().collect();
    assert_eq!(kinds, ["multiboot,ramdisk", "multiboot,module"]);
    assert_eq!(copy.memory().regions().count(), 1);
    assert_eq!(copy.memory_reservations().count(), 1);
}

#[test]
fn a_tree_without_chosen_gets_one() {
    let copy = edited(&tree(|_| ()));
    let copy = Fdt::new(&copy).expect("a tree");
    assert_eq!(
        text(&copy, "/chosen", "xen,xen-bootargs"),
        Some("loglvl=all")
    );
    assert_eq!(reg(&copy, "/chosen/module@7d780000").len(), 16);
}

#[test]
fn only_the_root_s_chosen_counts() {
    let source = tree(|tree| {
        let other = tree.begin_node("other").expect("a node");
        let chosen = tree.begin_node("chosen").expect("a node");
        tree.end_node(chosen).expect("an end");
        tree.end_node(other).expect("an end");
    });
    let copy = edited(&source);
    let copy = Fdt::new(&copy).expect("a tree");
    assert!(copy.find_node("/chosen/module@7d780000").is_some());
    assert!(copy.find_node("/other/chosen/module@7d780000").is_none());
}

#[test]
fn the_cells_that_chosen_has_are_kept() {
    let copy = edited(&chosen(|tree| {
        tree.property_u32("#address-cells", 1).expect("a property");
        tree.property_u32("#size-cells", 1).expect("a property");
    }));
    let copy = Fdt::new(&copy).expect("a tree");
    assert_eq!(
        reg(&copy, "/chosen/module@70001000"),
        [0x70, 0, 0x10, 0, 0, 0, 0, 7]
    );
}

#[test]
fn an_older_command_line_and_ram_disk_go() {
    let copy = edited(&chosen(|tree| {
        tree.property_string("xen,xen-bootargs", "old")
            .expect("a property");
        tree.property_u32("linux,initrd-start", 1)
            .expect("a property");
        tree.property_u32("linux,initrd-end", 2)
            .expect("a property");
    }));
    let copy = Fdt::new(&copy).expect("a tree");
    assert_eq!(
        text(&copy, "/chosen", "xen,xen-bootargs"),
        Some("loglvl=all")
    );
    let chosen = copy.find_node("/chosen").expect("a node");
    assert!(chosen.property("linux,initrd-start").is_none());
    assert!(chosen.property("linux,initrd-end").is_none());
}

#[test]
fn more_cells_than_a_module_has_are_refused() {
    for (property, value) in [("#address-cells", 3), ("#size-cells", 0)] {
        let source = chosen(|tree| tree.property_u32(property, value).expect("a property"));
        assert_eq!(copy(&source, &[Some(KERNEL)]), Err(Refused::Cells));
    }
}

#[test]
fn modules_are_seen_below_chosen_only() {
    let source = chosen(|_| ());
    assert!(!has_modules(&check(&source)));
    assert!(has_modules(&check(&edited(&source))));
    let elsewhere = tree(|tree| {
        let node = tree.begin_node("module").expect("a node");
        tree.property_string("compatible", "multiboot,module")
            .expect("a property");
        tree.end_node(node).expect("an end");
    });
    assert!(!has_modules(&check(&elsewhere)));
}

#[test]
fn a_copy_of_a_damaged_tree_is_no_panic() {
    let source = edited(&chosen(|_| ()));
    let mut accepted = 0;
    for at in 0..source.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = source.clone();
            damaged[at] = value;
            let Ok(tree) = Blob::check(&damaged) else {
                continue;
            };
            accepted += 1;
            let modules = [Some(KERNEL)];
            let mut out = vec![0; copy_room(&tree, None, &modules)];
            if let Ok(length) = with_modules(&tree, None, &modules, &mut out) {
                assert!(
                    Blob::check(&out[..length]).is_ok(),
                    "byte {at} = {value:#x}"
                );
            }
        }
    }
    assert!(accepted > 100, "only {accepted} were tried");
}

#[test]
fn too_little_room_is_no_copy() {
    let source = chosen(|_| ());
    let whole = edited(&source).len();
    for room in [0, 39, whole / 2, whole - 1] {
        let mut out = vec![0; room];
        let modules = [Some(KERNEL), Some(RAMDISK)];
        assert_eq!(
            with_modules(&check(&source), OPTIONS, &modules, &mut out),
            Err(Refused::NoRoom)
        );
    }
}

//! The largest tree that is promised is read out of a heap like the image's early one (arch/src/heap.rs): the same allocator
//! over as many bytes, at the worst page there may be.
//!
//! A host's pointers are longer than the target's, so what fits here fits there.

use std::sync::Mutex;

use armv7::host::heap::on_the_early_heap;
use dt::{Blob, MAX_NODES, MAX_SIZE};
use krypton::platform::console;
use krypton::platform::host_dt::HostInfo;
use krypton::platform::tree;

/// Does on the early heap, alone, what a boot does before there is more: twice, as nothing may be left behind.
fn boot_from(tree: &[u8]) -> HostInfo {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let read = || {
        tree::with(tree, |tree| {
            HostInfo::read_command_lines(tree)?;
            console::find(tree, None)?;
            HostInfo::of(tree, &|_| None)
        })
        .unwrap()
    };
    on_the_early_heap(|| {
        drop(read());
        read()
    })
}

/// Makes a tree like QEMU's.
struct Tree {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Tree {
    /// With RAM, a CPU, a GIC, a timer, a console, and then what `more` adds.
    fn blob_with(more: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut tree = Self {
            structure: Vec::new(),
            strings: Vec::new(),
        };
        tree.begin("");
        tree.cells("#address-cells", &[1]);
        tree.cells("#size-cells", &[1]);
        tree.cells("interrupt-parent", &[1]);
        tree.begin("memory");
        tree.property("device_type", b"memory\0");
        tree.cells("reg", &[0x4000_0000, 0x4000_0000]);
        tree.end();
        tree.begin("chosen");
        tree.property("stdout-path", b"/uart\0");
        tree.end();
        tree.begin("uart");
        tree.property("compatible", b"arm,pl011\0");
        tree.cells("reg", &[0x900_0000, 0x1000]);
        tree.end();
        tree.begin("gic");
        tree.cells("phandle", &[1]);
        tree.cells("#interrupt-cells", &[3]);
        tree.property("interrupt-controller", &[]);
        tree.property("compatible", b"arm,cortex-a15-gic\0");
        tree.cells(
            "reg",
            &[
                0x800_0000, 0x1000, 0x801_0000, 0x2000, 0x803_0000, 0x1000, 0x804_0000, 0x2000,
            ],
        );
        tree.cells("interrupts", &[1, 9, 4]);
        tree.end();
        tree.begin("timer");
        tree.property("compatible", b"arm,armv7-timer\0");
        tree.cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
        tree.end();
        tree.begin("cpus");
        tree.cells("#address-cells", &[1]);
        tree.cells("#size-cells", &[0]);
        tree.begin("cpu");
        tree.property("device_type", b"cpu\0");
        tree.property("compatible", b"arm,cortex-a15\0");
        tree.cells("reg", &[0]);
        tree.end();
        tree.end();
        more(&mut tree);
        tree.end();
        tree.finish()
    }

    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.structure.extend(bytes);
        let padded = self.structure.len().next_multiple_of(4);
        self.structure.resize(padded, 0);
    }

    fn begin(&mut self, name: &str) {
        self.word(1);
        self.bytes(&[name.as_bytes(), b"\0"].concat());
    }

    fn end(&mut self) {
        self.word(2);
    }

    fn nop(&mut self) {
        self.word(4);
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        let name = [name.as_bytes(), b"\0"].concat();
        let known = self.strings.windows(name.len()).position(|w| w == name);
        let at = known.unwrap_or(self.strings.len());
        if known.is_none() {
            self.strings.extend(name);
        }
        self.word(3);
        self.word(value.len() as u32);
        self.word(at as u32);
        self.bytes(value);
    }

    fn cells(&mut self, name: &str, cells: &[u32]) {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &value);
    }

    /// The blob: header, an empty reservation block, structure, strings.
    fn finish(mut self) -> Vec<u8> {
        const STRUCTURE: usize = 56;
        self.word(9);
        let strings = STRUCTURE + self.structure.len();
        let total = strings + self.strings.len();
        let header = [
            0xd00d_feed,
            total,
            STRUCTURE,
            strings,
            40,
            17,
            16,
            0,
            self.strings.len(),
            self.structure.len(),
        ];
        let mut blob: Vec<u8> = header
            .iter()
            .flat_map(|field| (*field as u32).to_be_bytes())
            .collect();
        blob.resize(STRUCTURE, 0);
        blob.extend(self.structure);
        blob.extend(self.strings);
        blob
    }
}

/// A node of a dozen for a start: the root, and what hangs from it.
const OWN_NODES: usize = 8;

#[test]
fn a_tree_of_160_kib_with_a_nop_token_is_read() {
    let blob = Tree::blob_with(|tree| {
        tree.begin("panel-firmware");
        tree.property("data", &[0x5a; 160_000]);
        tree.end();
        tree.nop();
    });
    assert_eq!(boot_from(&blob).ram.len(), 1);
}

#[test]
fn a_tree_of_2560_small_nodes_is_read() {
    let blob = Tree::blob_with(|tree| {
        for n in 0..2560 {
            tree.begin(&format!("n{n}"));
            tree.end();
        }
    });
    assert_eq!(boot_from(&blob).cpus.len(), 1);
}

#[test]
fn as_many_nodes_as_there_may_be_each_with_a_phandle_are_read() {
    let blob = Tree::blob_with(|tree| {
        for n in OWN_NODES..MAX_NODES {
            tree.nop();
            tree.begin(&format!("n{n:x}"));
            tree.cells("phandle", &[0x10_0000 - n as u32]);
            tree.end();
        }
    });
    assert_eq!(Blob::check(&blob).map(drop), Ok(()));
    assert_eq!(boot_from(&blob).cpus.len(), 1);
    let one_more = Tree::blob_with(|tree| {
        for _ in OWN_NODES..=MAX_NODES {
            tree.begin("n");
            tree.end();
        }
    });
    let line = Blob::check(&one_more).map(drop).unwrap_err().to_string();
    assert!(line.contains("too many nodes"), "{line}");
}

#[test]
fn a_tree_as_long_as_one_may_be_is_read() {
    let blob = Tree::blob_with(|tree| {
        for n in 0..4096 {
            tree.begin(&format!("n{n:x}"));
            tree.property("data", &[0xa5; 440]);
            tree.end();
            tree.nop();
        }
        let left = MAX_SIZE - 1024 - tree.structure.len();
        tree.begin("rest");
        tree.property("data", &vec![0; left]);
        tree.end();
    });
    assert!(
        blob.len() > MAX_SIZE - 1024 && blob.len() <= MAX_SIZE,
        "{:#x}",
        blob.len()
    );
    assert_eq!(boot_from(&blob).ram.len(), 1);
}

use crate::writer::SHARED_NAMES;
use crate::{Blob, Entry, Error, MAX_NODES, Token, Tree, Writer};
use proptest::prelude::{any, prop, proptest};
use std::io::Write;
use std::process::{Command, Stdio};

const LONG_NODE: &str = "regulator-with-a-very-long-node-name-of-over-31-letters@0";
const LONG_PROPERTY: &str = "samsung,exynos-sataphy-i2c-phandle";

/// Returns the blob that `write` makes.
fn blob_of(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = vec![0xaa; 1 << 20];
    let mut writer = Writer::new(&mut out, 1 << 19);
    write(&mut writer);
    let length = writer.finish().unwrap();
    out.truncate(length);
    out
}

fn with_tree<R>(blob: &[u8], f: impl FnOnce(&Tree<'_>) -> R) -> R {
    let blob = Blob::check(blob).unwrap();
    let mut entries = vec![Entry::EMPTY; blob.nodes()];
    f(&Tree::new(blob, &mut entries).unwrap())
}

fn sample() -> Vec<u8> {
    blob_of(|writer| {
        writer.reserve(0x4000_0000, 0x1000);
        writer.begin("");
        writer.string("model", "a\0b");
        writer.strings("compatible", &["x,y"]);
        writer.begin(LONG_NODE);
        writer.cells(LONG_PROPERTY, &[1, 0xffff_ffff]);
        writer.property("odd", &[1, 2, 3]);
        writer.end();
        writer.begin("1w@0");
        writer.property("odd", &[]);
        writer.begin("_");
    })
}

/// Returns the source that dtc makes of a blob; `None` where there is no dtc.
fn source_by_dtc(blob: &[u8]) -> Option<String> {
    let mut dtc = Command::new("dtc")
        .args(["-q", "-I", "dtb", "-O", "dts", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    dtc.stdin.take().unwrap().write_all(blob).unwrap();
    let output = dtc.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_blob_has_all_that_was_written_in_its_order() {
    let blob = sample();
    let reserved: Vec<_> = Blob::check(&blob).unwrap().reserved().collect();
    assert_eq!(reserved, [(0x4000_0000, 0x1000)]);
    let fdt = fdt::Fdt::new(&blob).unwrap();
    let nodes: Vec<&str> = fdt.all_nodes().map(|node| node.name).collect();
    assert_eq!(nodes, ["/", LONG_NODE, "1w@0", "_"]);
    let root = fdt.find_node("/").unwrap();
    assert_eq!(root.property("model").unwrap().value, b"a\0");
    assert_eq!(root.property("compatible").unwrap().value, b"x,y\0");
    let node = fdt.all_nodes().nth(1).unwrap();
    let value = node.property(LONG_PROPERTY).unwrap().value;
    assert_eq!(value, [0, 0, 0, 1, 255, 255, 255, 255]);
    assert_eq!(node.property("odd").unwrap().value, [1, 2, 3]);
}

#[test]
fn dtc_reads_what_is_written() {
    let Some(source) = source_by_dtc(&sample()) else {
        return;
    };
    let words: Vec<&str> = source.split_ascii_whitespace().collect();
    let expected = format!(
        "/dts-v1/; /memreserve/ 0x0000000040000000 0x0000000000001000; / {{ model = \"a\"; \
         compatible = \"x,y\"; {LONG_NODE} {{ {LONG_PROPERTY} = <0x01 0xffffffff>; \
         odd = [01 02 03]; }}; 1w@0 {{ odd; _ {{ }}; }}; }};"
    );
    assert_eq!(words.join(" "), expected);
}

#[test]
fn a_name_is_kept_once() {
    let size = |names: usize, times: usize| {
        let blob = blob_of(|writer| {
            writer.begin("");
            for n in 0..names * times {
                writer.property(&format!("p{:06}", n % names), &[]);
            }
        });
        Blob::check(&blob).unwrap();
        with_tree(&blob, |tree| {
            let last = tree.root().properties().last().unwrap().0;
            assert_eq!(last, format!("p{:06}", names - 1));
        });
        blob.len()
    };
    let (entry, name) = (12, "p000000\0".len());
    let shared = SHARED_NAMES / name;
    assert_eq!(size(shared, 2) - size(shared, 1), shared * entry);
    // A name beyond the limit is written again, and is read all the same.
    let beyond = size(shared + 1, 2) - size(shared + 1, 1);
    assert_eq!(beyond, (shared + 1) * entry + name);
}

#[test]
fn a_name_is_not_taken_for_the_beginning_or_end_of_another() {
    let names = ["abc", "ab", "c", "bc", "", "abcd", "abc"];
    let blob = blob_of(|writer| {
        writer.begin("");
        for name in names.iter().filter(|name| !name.is_empty()) {
            writer.property(name, name.as_bytes());
        }
    });
    with_tree(&blob, |tree| {
        for (name, value) in tree.root().properties() {
            assert_eq!(name.as_bytes(), value);
        }
        assert_eq!(tree.root().property("b"), None);
        assert_eq!(tree.root().property("bc"), Some(&b"bc"[..]));
    });
}

#[test]
fn an_end_too_many_changes_nothing() {
    let blob = blob_of(|writer| {
        writer.begin("");
        writer.end();
        writer.end();
    });
    Blob::check(&blob).unwrap();
}

#[test]
fn what_does_not_fit_is_no_blob() {
    let write = |room: usize, names: usize| {
        let mut out = vec![0; room];
        let mut writer = Writer::new(&mut out, names);
        writer.begin("");
        writer.string("model", "x");
        writer.finish()
    };
    // Header, the end of no reservations, a node with one property, and its name.
    let structure = 40 + 16 + 8 + 16 + 4 + 4;
    assert_eq!(write(structure + 6, 6), Some(structure + 6));
    for (room, names) in [
        (structure + 5, 5),
        (structure + 5, 6),
        (39, 0),
        (0, 0),
        (0, 9),
    ] {
        assert_eq!(write(room, names), None, "{room} {names}");
    }
}

#[test]
fn paths_are_compared_as_they_are_written() {
    let blob = blob_of(|writer| {
        writer.begin("");
        writer.begin("a");
        writer.begin("b@1");
    });
    with_tree(&blob, |tree| {
        let paths: Vec<String> = tree.all().map(|node| node.path().to_string()).collect();
        assert_eq!(paths, ["/", "/a", "/a/b@1"]);
        let others = ["", "//", "a", "//a", "/a/", "/b@1", "x/a/b@1", "/a/b"];
        for (n, node) in tree.all().enumerate() {
            for (m, path) in paths.iter().map(String::as_str).chain(others).enumerate() {
                assert_eq!(node.path() == path, n == m, "{n} {path}");
            }
        }
    });
}

#[test]
fn a_node_is_found_by_its_phandle_the_first_of_two() {
    let phandles = [7, 7, 2, 9, 16, 0, u32::MAX];
    let blob = blob_of(|writer| {
        writer.begin("");
        for (n, phandle) in phandles.iter().enumerate() {
            writer.begin(&format!("n{n}"));
            writer.cells(
                if n % 2 == 0 {
                    "phandle"
                } else {
                    "linux,phandle"
                },
                &[*phandle],
            );
            writer.end();
        }
    });
    with_tree(&blob, |tree| {
        for phandle in phandles {
            let first = phandles.iter().position(|other| *other == phandle).unwrap();
            let node = tree.by_phandle(phandle).unwrap();
            assert_eq!((node.index(), node.phandle()), (first + 1, Some(phandle)));
        }
        for phandle in [1, 8, 15, 23, 0x8000_0000] {
            assert!(tree.by_phandle(phandle).is_none(), "{phandle}");
        }
    });
}

#[test]
fn too_few_entries_are_no_tree() {
    let blob = sample();
    let blob = Blob::check(&blob).unwrap();
    let mut entries = vec![Entry::EMPTY; blob.nodes() - 1];
    assert!(Tree::new(blob, &mut entries).is_none());
}

#[test]
fn each_look_at_a_property_or_an_entry_of_a_search_is_a_step() {
    let blob = blob_of(|writer| {
        writer.begin("");
        for n in 0..100 {
            writer.property(&format!("p{n}"), &[0; 160]);
        }
    });
    with_tree(&blob, |tree| {
        let root = tree.root();
        assert!(root.has("p99"));
        assert_eq!(tree.spent(), 100 + 10);
        assert!(!root.has("p100"));
        assert_eq!(tree.spent(), 200 + 10);
        assert!(tree.exhausted_at().is_none());
        assert!(!root.spend(usize::MAX));
        assert_eq!(root.properties().count(), 0);
        assert!(tree.exhausted_at().is_some_and(|node| node == root));
    });
}

#[test]
fn more_reservations_than_any_board_has_are_refused() {
    let with = |count: u64| {
        let blob = blob_of(|writer| {
            for n in 0..count {
                writer.reserve(n, 1);
            }
            writer.begin("");
        });
        Blob::check(&blob).map(|blob| blob.reserved().count())
    };
    assert_eq!(with(1024), Ok(1024));
    assert_eq!(
        with(1025),
        Err(Error::Header("endless memory reservation block", 40))
    );
}

/// Walks over all that there is.
fn walk(bytes: &[u8]) {
    let Ok(blob) = Blob::check(bytes) else { return };
    assert!((1..=MAX_NODES).contains(&blob.nodes()));
    let mut cursor = blob.cursor(0);
    while !matches!(cursor.read().unwrap(), Token::Last) {}
    with_tree(bytes, |tree| {
        for node in tree.all() {
            let path = node.path().to_string();
            assert!(node.path() == path.as_str());
            assert!(node.children().all(|child| child.parent() == Some(node)));
            for (name, _) in node.properties() {
                assert!(node.has(name));
            }
            assert!(
                node.phandle()
                    .is_none_or(|phandle| tree.by_phandle(phandle).is_some())
            );
            let _ = (node.reg().count(), node.string("model"), node.base_name());
        }
    });
}

proptest! {
    #[test]
    fn a_damaged_blob_is_read_or_refused_but_never_panics(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        words in prop::collection::vec((any::<prop::sample::Index>(), 0u32..12), 0..4),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut blob = sample();
        for (at, value) in words {
            let at = at.index(blob.len() / 4) * 4;
            blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        for (at, value) in bytes {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        if truncate {
            blob.truncate(cut.index(blob.len()));
        }
        walk(&blob);
    }
}

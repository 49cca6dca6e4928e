//! docs/advisories.md: every advisory has its row, and every test that a row names is there. And what a row says of the
//! vectors.

#[path = "support/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The advisories of Xen that concern code which Arm runs (docs/advisories.md says which are left out).
const ADVISORIES: [u32; 105] = [
    18, 20, 29, 31, 47, 50, 55, 73, 77, 84, 85, 91, 93, 94, 95, 98, 100, 101, 102, 103, 107, 114,
    117, 118, 122, 125, 127, 132, 134, 141, 145, 146, 147, 149, 151, 152, 158, 159, 181, 188, 201,
    210, 213, 218, 221, 222, 223, 224, 225, 226, 228, 230, 231, 232, 235, 236, 245, 254, 255, 263,
    268, 295, 301, 303, 307, 312, 313, 314, 316, 318, 327, 338, 340, 342, 343, 344, 351, 358, 359,
    364, 372, 379, 380, 382, 383, 384, 385, 393, 398, 409, 411, 436, 437, 447, 473, 486, 492, 493,
    496, 499, 500, 501, 502, 505, 506,
];

/// A row: what prevents the fault, and the names of tests that it gives.
struct Row {
    prevents: String,
    tests: Vec<String>,
    admits_none: bool,
}

fn rows() -> BTreeMap<u32, Row> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/advisories.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(number) = cells.first().and_then(|cell| cell.parse().ok()) else {
            continue;
        };
        let [_, _, prevents, tests] = cells[..] else {
            panic!("a row has four cells: {line}");
        };
        let names = tests.split('`').skip(1).step_by(2).map(String::from);
        let row = Row {
            prevents: prevents.to_owned(),
            tests: names.collect(),
            admits_none: tests.contains("**None**"),
        };
        assert!(rows.insert(number, row).is_none(), "XSA-{number} twice");
    }
    rows
}

/// The names of all functions in the tree, and the paths of scripts.
fn known() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["arch", "dt", "src", "tests"] {
        for file in source::files(folder, &[".rs", ".sh"]) {
            for (at, _) in file.text.match_indices("fn ") {
                let rest = &file.text[at + 3..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                names.insert(rest[..end.unwrap_or(0)].to_owned());
            }
            names.insert(file.path);
        }
    }
    names
}

#[test]
fn each_advisory_has_a_row_and_each_row_its_tests() {
    let (rows, known) = (rows(), known());
    assert_eq!(
        rows.keys().copied().collect::<Vec<_>>(),
        ADVISORIES.to_vec()
    );
    for (number, row) in rows {
        assert!(!row.prevents.is_empty(), "XSA-{number}: what prevents it?");
        assert!(
            !row.tests.is_empty() || row.admits_none,
            "XSA-{number} names no test, and does not say that there is none"
        );
        for test in row.tests {
            assert!(known.contains(&test), "XSA-{number}: there is no {test}");
        }
    }
}

fn instructions(file: &str) -> Vec<String> {
    let all = source::files("arch/src", &[".S"]);
    let text = &all.iter().find(|one| one.path == file).unwrap().text;
    text.lines()
        .map(|line| line.split("//").next().unwrap_or("").trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

/// XSA-312: what is behind an ERET may be speculated with the guest's registers.
#[test]
fn every_eret_is_followed_by_barriers() {
    let lines = instructions("arch/src/vectors.S");
    let erets: Vec<_> = (0..lines.len())
        .filter(|&at| lines[at].starts_with("eret"))
        .collect();
    assert!(!erets.is_empty());
    for at in erets {
        assert!(lines[at + 1].starts_with("dsb"), "line {at}");
        assert!(lines[at + 2].starts_with("isb"), "line {at}");
    }
    // Nor is there one elsewhere.
    for folder in ["arch/src", "src", "boot"] {
        for file in source::files(folder, &[".rs", ".S"]) {
            let is_boot = file.path.starts_with("boot/");
            assert!(
                is_boot || file.path.ends_with("vectors.S") || !file.text.contains("\"eret\""),
                "{}",
                file.path
            );
        }
    }
}

/// XSA-303: an exception of ours must not let interrupts in. Asynchronous aborts are let in where they are waited for.
#[test]
fn only_one_place_of_the_vectors_unmasks_anything() {
    let lines = instructions("arch/src/vectors.S");
    let unmasking: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("cpsie"))
        .collect();
    assert_eq!(unmasking.len(), 1, "{unmasking:?}");
    assert!(unmasking[0].ends_with(" a"), "{unmasking:?}");
}

//! Takes the source of the lock-free places as it is, with loom's atomics in place of the processor's, and once more for each
//! way to weaken it (`src/lib.rs`): a weakened one must fail its test.

use std::fs;
use std::path::{Path, PathBuf};

/// A change of the source: what is replaced, by what.
type Change = (&'static str, &'static str);

/// Changes for loom: its own types, and fakes of what only the machine has.
const FRAME: &[Change] = &[
    ("core::sync::atomic", "loom::sync::atomic"),
    ("use armv7::double;\n", "use crate::double;\n"),
    ("use zerocopy::FromZeros;\n", ""),
    ("#[derive(Debug, Default, FromZeros)]", "#[derive(Debug)]"),
    ("    pub const fn new() -> Self {\n        Self(AtomicU64", "    pub fn new() -> Self {\n        Self(AtomicU64"),
    ("pub(super)", "pub"),
];
const WORD: &[Change] = &[("core::sync::atomic", "loom::sync::atomic"), ("pub(super)", "pub")];
const ENTRY: &[Change] = &[
    ("core::sync::atomic", "loom::sync::atomic"),
    ("use armv7::frame::SharedPage;\n", ""),
    ("use super::Access;\n", "use crate::entry_types::*;\n"),
    ("    word: &'a AtomicU32,", "    pub word: &'a AtomicU32,"),
    ("    flags: &'a AtomicU16,", "    pub flags: &'a AtomicU16,"),
    ("    frame: &'a AtomicU32,", "    pub frame: &'a AtomicU32,"),
    ("pub(super)", "pub"),
];

/// A weakening: the name of the module, and the change.
type Weaker = (&'static str, Change);

const WEAKER_FRAMES: &[Weaker] = &[
    (
        "frame_put_without_release",
        ("            fence(Ordering::Release);\n            if !double::replace", "            if !double::replace"),
    ),
    (
        "frame_put_without_acquire",
        ("            fence(Ordering::Acquire);\n            return Some(Last", "            return Some(Last"),
    ),
    (
        "frame_live_without_release",
        (
            "            fence(Ordering::Release);\n            double::store(entry, live",
            "            double::store(entry, live",
        ),
    ),
    (
        "frame_get_without_acquire",
        (
            "                fence(Ordering::Acquire);\n                return Some((kind, owner));",
            "                return Some((kind, owner));",
        ),
    ),
];
const WEAKER_WORDS: &[Weaker] = &[
    (
        "word_update_relaxed",
        ("change(old), Ordering::Release, Ordering::Relaxed", "change(old), Ordering::Relaxed, Ordering::Relaxed"),
    ),
    (
        "word_update_that_stores_nothing_new",
        (
            "    loop {\n        match word.compare",
            "    loop {\n        if change(old) == old { return Ok(old); }\n        match word.compare",
        ),
    ),
    ("word_replace_relaxed", ("(old, new, Ordering::Release", "(old, new, Ordering::Relaxed")),
    ("word_raise_relaxed", ("(old, 1, Ordering::Release", "(old, 1, Ordering::Relaxed")),
];
const WEAKER_ENTRIES: &[Weaker] = &[
    ("entry_mark_relaxed", ("                Ordering::Acquire,\n", "                Ordering::Relaxed,\n")),
    ("entry_clear_relaxed", ("                Ordering::Release,\n", "                Ordering::Relaxed,\n")),
];

fn main() {
    generate("src/mem/frame_table.rs", "frame", FRAME, WEAKER_FRAMES);
    generate("src/event/word.rs", "word", WORD, WEAKER_WORDS);
    generate("src/grant/entry.rs", "entry", ENTRY, WEAKER_ENTRIES);
}

fn generate(source: &str, name: &str, changes: &[Change], weaker: &[Weaker]) {
    let path = Path::new("../..").join(source);
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(&path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    let mut text: String =
        text.lines().filter(|line| !line.starts_with("//!")).map(|line| format!("{line}\n")).collect();
    // Cuts out the function that looks into a page of the machine, with the comment above it.
    const AT: &str = "    pub(super) fn at(page";
    const END: &str = "\n    }\n";
    if let Some(from) = text.find(AT) {
        let end = text[from..].find(END).expect("the function ends") + END.len();
        let comment = text[..from].rfind("{\n").expect("a block around it") + 2;
        text.replace_range(comment..from + end, "");
    }
    for change in changes {
        text = changed(&text, *change, source);
    }
    write(name, &text);
    for (name, change) in weaker {
        write(name, &changed(&text, *change, source));
    }
}

fn changed(text: &str, (from, to): Change, source: &str) -> String {
    assert!(text.contains(from), "{source} does not have {from:?} any more: build.rs is to follow it");
    text.replace(from, to)
}

fn write(name: &str, text: &str) {
    let folder = PathBuf::from(std::env::var("OUT_DIR").unwrap());
    fs::write(folder.join(format!("{name}.rs")), text).unwrap();
}

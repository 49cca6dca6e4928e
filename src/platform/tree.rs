//! The device tree of a boot: checked once, read once, and lent to its readers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dt::{BUDGET, Blob, Entry, Tree};

use super::BootError;

/// Allocates the node storage of a [`Tree`].
pub fn entries(blob: &Blob<'_>) -> Result<Vec<Entry>, BootError> {
    let mut entries = Vec::new();
    let no_memory = |_| BootError::Corrupt(String::from("no memory to read it"));
    entries.try_reserve_exact(blob.nodes()).map_err(no_memory)?;
    entries.resize(blob.nodes(), Entry::EMPTY);
    Ok(entries)
}

/// Reads the nodes of `blob` into its [`entries`].
pub fn read<'a>(blob: Blob<'a>, entries: &'a mut [Entry]) -> Result<Tree<'a>, BootError> {
    let too_few = || BootError::Corrupt(String::from("no memory to read it"));
    Tree::new(blob, entries).ok_or_else(too_few)
}

/// Fails if the tree's readers have used up the boot's budget, so that their results are incomplete.
pub fn check_budget(tree: &Tree<'_>) -> Result<(), BootError> {
    match tree.exhausted_at() {
        None => Ok(()),
        Some(node) => {
            let path = node.path();
            let what = format!("reading it takes more than {BUDGET} steps, the last at {path}");
            Err(BootError::Corrupt(what))
        }
    }
}

/// Calls a function with the tree in `bytes`, which may be longer than the tree.
pub fn with<T>(
    bytes: &[u8],
    f: impl FnOnce(&Tree<'_>) -> Result<T, BootError>,
) -> Result<T, BootError> {
    let blob = Blob::check(bytes)?;
    f(&read(blob, &mut entries(&blob)?)?)
}

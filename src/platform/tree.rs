//! The device tree as a boot has it: checked once, read once, and lent to whoever looks at it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dt::{BUDGET, Blob, Entry, Tree};

use super::BootError;

/// Makes room for what a [`Tree`] keeps of the nodes.
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

/// Refuses a tree whose readers have used up the boot's budget, so that what they read is incomplete.
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

/// Does something with the tree in `bytes`, which may be longer than the tree.
pub fn with<T>(
    bytes: &[u8],
    f: impl FnOnce(&Tree<'_>) -> Result<T, BootError>,
) -> Result<T, BootError> {
    let blob = Blob::check(bytes)?;
    f(&read(blob, &mut entries(&blob)?)?)
}

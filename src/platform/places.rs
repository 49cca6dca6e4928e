//! The parts of the machine's RAM that modules and domains have, each checked against those before it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::ranges::PhysRange;

/// Parts of the machine's RAM that are taken: names and places.
pub type Places<'a> = Vec<(&'a str, PhysRange)>;

/// Something in the machine's RAM.
pub struct Taken<'a> {
    /// Its node.
    pub path: &'a str,
    /// The property that names it, behind a colon, if it is not the node's `reg`.
    pub property: &'a str,
    /// Its place.
    pub range: PhysRange,
    /// Things that may be in the same range.
    pub sharing: Sharing<'a>,
}

/// Things that may be in one range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sharing<'a> {
    /// Nothing else.
    None,
    /// The same file, for another domain.
    File,
    /// Memory with the same id. All of one id is one range.
    Id(&'a str),
}

impl Taken<'_> {
    fn clashes_with(&self, other: &Self) -> bool {
        match (self.sharing, other.sharing) {
            (Sharing::File, Sharing::File) if self.range == other.range => false,
            (Sharing::Id(id), Sharing::Id(other_id)) if id == other_id => self.range != other.range,
            _ => self.range.overlaps(&other.range),
        }
    }
}

/// Adds something to what is taken, unless it cannot be there.
#[inline(never)]
pub fn add<'a>(
    taken: Taken<'a>,
    ram: &[PhysRange],
    others: &Places<'_>,
    before: &mut Vec<Taken<'a>>,
) -> Result<(), String> {
    let Taken {
        path,
        property,
        range,
        ..
    } = &taken;
    if !ram.iter().any(|bank| bank.contains(range)) {
        return Err(format!("{path}{property} at {range} is not in RAM"));
    }
    let mut others = others.iter().filter(|(_, at)| at.overlaps(range));
    let mut before_it = before.iter().filter(|other| taken.clashes_with(other));
    let other = match others.next() {
        Some((name, at)) => Some((*name, "", at)),
        None => before_it
            .next()
            .map(|other| (other.path, other.property, &other.range)),
    };
    if let Some((other, of, at)) = other {
        return Err(format!(
            "{path}{property} at {range} overlaps {other}{of} at {at}"
        ));
    }
    before.push(taken);
    Ok(())
}

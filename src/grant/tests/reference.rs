//! A model of a granter's table, in the simplest form: the other half of the random histories.

use std::collections::BTreeMap;

use armv7::addr::Mfn;

use super::Memory;
use crate::abi::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK, GTF_WRITING,
    GrantError,
};
use crate::grant::{Access, ENTRIES_PER_FRAME, GrantedFrame};

/// How many domains there are.
pub(super) const DOMAINS: usize = 3;

const BOTH: u32 = (GTF_READING | GTF_WRITING) as u32;

/// The model's record of an entry in use.
pub(super) struct Use {
    pub by: usize,
    pub frame: GrantedFrame,
    pub readers: u32,
    pub writers: u32,
}

#[derive(Default)]
pub(super) struct Model {
    pub words: BTreeMap<(usize, u32), (u32, u32)>,
    pub uses: BTreeMap<(usize, u32), Use>,
    pub dead: [bool; DOMAINS],
}

impl Model {
    pub fn acquire(
        &mut self,
        memory: &Memory,
        (granter, at): (usize, u32),
        by: usize,
        access: Access,
    ) -> Result<Mfn, GrantError> {
        if self.dead[granter] {
            return Err(GrantError::BadDomain);
        }
        if at >= 2 * ENTRIES_PER_FRAME {
            return Err(GrantError::BadGrantRef);
        }
        let (word, frame) = self.words.entry((granter, at)).or_default();
        let marks = if access == Access::Write {
            BOTH
        } else {
            u32::from(GTF_READING)
        };
        let read_only = *word & u32::from(GTF_READONLY) != 0;
        if let Some(used) = self.uses.get_mut(&(granter, at)) {
            if used.by != by {
                return Err(GrantError::General);
            }
            if access == Access::Write && used.writers == 0 {
                if !used.frame.writable {
                    return Err(GrantError::BadPage);
                }
                if read_only {
                    return Err(GrantError::General);
                }
                *word |= marks;
            }
            used.add(access);
            return Ok(used.frame.mfn);
        }
        let kind = *word & u32::from(GTF_TYPE_MASK | GTF_SUB_PAGE);
        if kind != u32::from(GTF_PERMIT_ACCESS)
            || *word >> 16 != by as u32
            || (access == Access::Write && read_only)
        {
            return Err(GrantError::General);
        }
        let found = memory.map.iter().find(|(gfn, _)| gfn.raw() == *frame);
        match found {
            Some((_, frame)) if frame.writable || access == Access::Read => {
                *word |= marks;
                let mut used = Use {
                    by,
                    frame: *frame,
                    readers: 0,
                    writers: 0,
                };
                used.add(access);
                self.uses.insert((granter, at), used);
                Ok(frame.mfn)
            }
            _ => {
                *word &= !BOTH;
                Err(GrantError::BadPage)
            }
        }
    }

    pub fn release(&mut self, entry: (usize, u32), access: Access) {
        let used = self.uses.get_mut(&entry).expect("the entry is in use");
        let (word, _) = self.words.entry(entry).or_default();
        match access {
            Access::Read => used.readers -= 1,
            Access::Write => used.writers -= 1,
        }
        if used.readers + used.writers == 0 {
            *word &= !BOTH;
            self.uses.remove(&entry);
        } else if access == Access::Write && used.writers == 0 {
            *word &= !u32::from(GTF_WRITING);
        }
    }

    pub fn references(&self, granter: usize, mfn: Mfn) -> u32 {
        let of =
            |(entry, used): &(&(usize, u32), &Use)| entry.0 == granter && used.frame.mfn == mfn;
        self.uses.iter().filter(of).count() as u32
    }
}

impl Use {
    fn add(&mut self, access: Access) {
        match access {
            Access::Read => self.readers += 1,
            Access::Write => self.writers += 1,
        }
    }
}

//! The audit: does the frame table agree with everything that holds references?
//!
//! For debugging and tests: it walks every frame and every list. The caller stops the world (or its part of it) and
//! names each reference it knows of; the hypervisor's own on `Shared` and `Direct` frames it names too.

use alloc::collections::BTreeMap;

use armv7::addr::Mfn;

use super::Memory;
use super::frame_table::{Kind, State};
use super::page_alloc::BadList;
use crate::id::DomId;

/// The first thing that does not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discrepancy {
    /// A frame's stored count is not the number of references found.
    Count {
        /// The frame.
        mfn: Mfn,
        /// References in the frame table; 0 when the frame is not live.
        stored: u32,
        /// References that the caller named.
        found: u32,
    },
    /// A domain's account is not the number of its live frames.
    Account {
        /// Whose.
        owner: DomId,
        /// Pages booked: RAM and shared.
        booked: (u32, u32),
        /// Live frames: RAM and shared.
        found: (u32, u32),
    },
    /// The free lists are broken.
    Free(BadList),
}

impl Memory {
    /// Compares the frame table with `references`: a frame, once for each reference on it.
    pub fn audit(&self, references: impl IntoIterator<Item = Mfn>) -> Result<(), Discrepancy> {
        let mut named: BTreeMap<u32, u32> = BTreeMap::new();
        for mfn in references {
            *named.entry(mfn.raw()).or_default() += 1;
        }
        let mut owned: BTreeMap<DomId, (u32, u32)> = BTreeMap::new();
        for index in 0..self.frames().frames() {
            let Some(mfn) = self.frames().at(index) else {
                break;
            };
            let mut stored = 0;
            if let State::Live { kind, owner, count } = self.state(mfn) {
                stored = count;
                let pages = owned.entry(owner).or_default();
                match kind {
                    Kind::Shared => pages.1 += 1,
                    Kind::Ram | Kind::Direct => pages.0 += 1,
                }
            }
            let found = named.remove(&mfn.raw()).unwrap_or(0);
            if stored != found {
                return Err(Discrepancy::Count { mfn, stored, found });
            }
        }
        if let Some((mfn, found)) = named.pop_first()
            && let Some(mfn) = Mfn::new(u64::from(mfn))
        {
            let stored = 0;
            return Err(Discrepancy::Count { mfn, stored, found });
        }
        for account in self.accounts() {
            let found = owned.remove(&account.owner).unwrap_or_default();
            let booked = (account.total, account.shared);
            if found != booked {
                let owner = account.owner;
                return Err(Discrepancy::Account {
                    owner,
                    booked,
                    found,
                });
            }
        }
        if let Some((owner, found)) = owned.pop_first() {
            let booked = (0, 0);
            return Err(Discrepancy::Account {
                owner,
                booked,
                found,
            });
        }
        self.pages.lock().check().map_err(Discrepancy::Free)
    }
}

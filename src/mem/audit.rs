//! The audit: compares the frame table with everything that holds references.
//!
//! For debugging and tests: it walks every frame and list, subtracts the references found from the counts, and adds
//! them back, so that it needs no memory for them. The caller holds all other CPUs and lists every reference.

use alloc::vec::Vec;

use armv7::addr::Mfn;

use super::Memory;
use super::frame_table::{Kind, State};
use super::page_alloc::BadList;
use crate::id::DomId;

/// The first discrepancy found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discrepancy {
    /// A frame's count differs from the number of references found.
    Count {
        /// The frame.
        mfn: Mfn,
        /// References in the frame table; 0 if the frame is not live.
        stored: u32,
        /// References that the caller listed.
        found: u32,
    },
    /// A domain's account differs from the number of its live frames.
    Account {
        /// The domain.
        owner: DomId,
        /// Pages in the account: RAM and shared.
        booked: (u32, u32),
        /// Live frames: RAM and shared.
        found: (u32, u32),
    },
    /// The free lists are broken.
    Free(BadList),
    /// Out of heap memory for a list of the domains.
    NoMemory,
}

/// Lists one reference on each of `count` frames from the given one on.
pub type Name<'a> = &'a mut dyn FnMut(Mfn, u32);

/// The hypervisor's own reference on a frame of kind `Direct`, mapped or not. `visit` does not list it.
const RESERVATION: u32 = 1;

impl Memory {
    /// Compares the frame table with the references that `visit` lists. `visit` must list the same ones each time.
    pub fn audit(&self, visit: impl Fn(Name<'_>)) -> Result<(), Discrepancy> {
        let mut taken = 0u64;
        let mut excess = None;
        visit(&mut |first, count| {
            for mfn in run(first, count) {
                if excess.is_none() {
                    match self.frames().audit_take(mfn) {
                        true => taken += 1,
                        false => excess = Some(mfn),
                    }
                }
            }
        });
        let wrong = excess.or_else(|| self.first_with_references_left());
        visit(&mut |first, count| {
            for mfn in run(first, count) {
                if taken > 0 {
                    self.frames().audit_give(mfn);
                    taken -= 1;
                }
            }
        });
        match wrong {
            Some(mfn) => Err(self.miscounted(mfn, visit)),
            None => self.audit_accounts(),
        }
    }

    fn first_with_references_left(&self) -> Option<Mfn> {
        self.all_frames().find(|mfn| match self.state(*mfn) {
            State::Live { kind, count, .. } => count != kind.reserved(),
            _ => false,
        })
    }

    fn miscounted(&self, mfn: Mfn, visit: impl Fn(Name<'_>)) -> Discrepancy {
        let (stored, mut found) = match self.state(mfn) {
            State::Live { kind, count, .. } => (count, kind.reserved()),
            _ => (0, 0),
        };
        visit(&mut |first, count| {
            if mfn.checked_sub(first).is_some_and(|n| n < count) {
                found += 1;
            }
        });
        Discrepancy::Count { mfn, stored, found }
    }

    fn all_frames(&self) -> impl Iterator<Item = Mfn> {
        (0..self.frames().frames()).map_while(|index| self.frames().at(index))
    }

    fn audit_accounts(&self) -> Result<(), Discrepancy> {
        let mut owned: Vec<(DomId, (u32, u32))> = Vec::new();
        for mfn in self.all_frames() {
            let State::Live { kind, owner, .. } = self.state(mfn) else {
                continue;
            };
            let place = match owned.binary_search_by_key(&owner, |(owner, _)| *owner) {
                Ok(place) => place,
                Err(place) => {
                    owned.try_reserve(1).map_err(|_| Discrepancy::NoMemory)?;
                    owned.insert(place, (owner, (0, 0)));
                    place
                }
            };
            if let Some((_, pages)) = owned.get_mut(place) {
                match kind {
                    Kind::Shared => pages.1 += 1,
                    Kind::Ram | Kind::Direct => pages.0 += 1,
                }
            }
        }
        let pages = self.pages.lock();
        for account in pages.accounts.iter() {
            let place = owned.binary_search_by_key(&account.owner, |(owner, _)| *owner);
            let found = place.map_or((0, 0), |place| owned.remove(place).1);
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
        if let Some((owner, found)) = owned.first().copied() {
            let booked = (0, 0);
            return Err(Discrepancy::Account {
                owner,
                booked,
                found,
            });
        }
        pages.check().map_err(Discrepancy::Free)
    }
}

fn run(first: Mfn, count: u32) -> impl Iterator<Item = Mfn> {
    (0..count).filter_map(move |n| first.checked_add(n))
}

impl Kind {
    /// Returns the number of references on a frame that `visit` does not list.
    fn reserved(self) -> u32 {
        match self {
            Self::Direct => RESERVATION,
            Self::Ram | Self::Shared => 0,
        }
    }
}

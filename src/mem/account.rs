//! Pages that each domain has, may have and has claimed.
//!
//! Under the allocator's lock, so that checking the limit and adding is one step (XSA-385). A domain's account outlives
//! the domain until its last page is free: a page that another domain still maps keeps its owner's id from being
//! reused.

use alloc::vec::Vec;

use super::frame_table::Kind;
use crate::id::DomId;

/// One domain's pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// The domain.
    pub owner: DomId,
    /// Pages of RAM (`tot_pages`).
    pub total: u32,
    /// Maximum pages of RAM (`max_pages`).
    pub limit: u32,
    /// Pages that the hypervisor keeps for the domain and shares with it.
    pub shared: u32,
    /// Mapping slots: pages beyond the direct map that the hypervisor keeps mapped.
    pub slots: u32,
    /// Claimed pages (`outstanding_pages`).
    pub claim: u32,
    /// The domain is destroyed.
    pub closed: bool,
}

/// Slots guaranteed to each domain: for eight vCPUs a control block, a `vcpu_info` and two pages of runstate each, and
/// a page of event words.
const SLOTS_EACH: u32 = 33;

/// All accounts, by owner.
#[derive(Debug, Default)]
pub struct Accounts {
    sorted: Vec<Account>,
    claimed: u32,
    slots: u32,
}

impl Accounts {
    /// Returns no accounts.
    pub const fn new() -> Self {
        Self {
            sorted: Vec::new(),
            claimed: 0,
            slots: 0,
        }
    }

    fn find(&self, owner: DomId) -> Result<usize, usize> {
        self.sorted
            .binary_search_by_key(&owner, |account| account.owner)
    }

    /// Opens an account for `owner` with a limit of `limit` pages. Returns false if there is one, or the heap is full.
    pub fn open(&mut self, owner: DomId, limit: u32) -> bool {
        match self.find(owner) {
            Err(place) if self.sorted.try_reserve(1).is_ok() => {
                let account = Account {
                    owner,
                    total: 0,
                    limit,
                    shared: 0,
                    slots: 0,
                    claim: 0,
                    closed: false,
                };
                self.sorted.insert(place, account);
                true
            }
            _ => false,
        }
    }

    /// Returns the account of `owner`.
    pub fn get(&self, owner: DomId) -> Option<&Account> {
        self.sorted.get(self.find(owner).ok()?)
    }

    pub(super) fn get_mut(&mut self, owner: DomId) -> Option<&mut Account> {
        let place = self.find(owner).ok()?;
        self.sorted.get_mut(place)
    }

    /// Returns the number of pages claimed by all domains.
    pub fn claimed(&self) -> u32 {
        self.claimed
    }

    /// Charges `owner` a slot that keeps a page mapped, of `all` slots in total. Returns false if it may not have
    /// another: beyond [`SLOTS_EACH`] only while less than half of all are in use.
    pub(super) fn take_slot(&mut self, owner: DomId, all: u32) -> bool {
        let used = self.slots;
        let Some(account) = self.get_mut(owner) else {
            return false;
        };
        if account.slots >= SLOTS_EACH && used >= all / 2 {
            return false;
        }
        account.slots += 1;
        self.slots += 1;
        true
    }

    /// Undoes [`Accounts::take_slot`].
    pub(super) fn give_slot(&mut self, owner: DomId) {
        if let Some(account) = self.get_mut(owner) {
            account.slots = account.slots.saturating_sub(1);
        }
        self.slots = self.slots.saturating_sub(1);
    }

    /// Sets the claim of `owner`. Returns false if `free` pages do not cover all claims.
    pub fn set_claim(&mut self, owner: DomId, pages: u32, free: u32) -> bool {
        let claimed = self.claimed;
        let Some(account) = self.get_mut(owner).filter(|account| !account.closed) else {
            return false;
        };
        let others = claimed - account.claim;
        match others.checked_add(pages) {
            Some(all) if all <= free || pages <= account.claim => {
                account.claim = pages;
                self.claimed = all;
                true
            }
            _ => false,
        }
    }

    /// Adds `pages` of RAM to `owner`'s total, and uses up its claim.
    pub(super) fn add_ram(&mut self, owner: DomId, pages: u32) {
        if let Some(account) = self.get_mut(owner) {
            let used = pages.min(account.claim);
            account.total = account.total.saturating_add(pages);
            account.claim -= used;
            self.claimed -= used;
        }
    }

    /// Subtracts freed pages. Returns whether a closed account became empty.
    pub(super) fn remove(&mut self, owner: DomId, kind: Kind, pages: u32) -> bool {
        let Some(account) = self.get_mut(owner) else {
            return false;
        };
        let held = match kind {
            Kind::Shared => &mut account.shared,
            Kind::Ram | Kind::Direct => &mut account.total,
        };
        *held = held.saturating_sub(pages);
        account.closed && account.total == 0 && account.shared == 0
    }

    /// Closes the account and cancels its claim. Returns whether it is empty.
    pub fn close(&mut self, owner: DomId) -> bool {
        self.set_claim(owner, 0, 0);
        self.get_mut(owner).is_some_and(|account| {
            account.closed = true;
            account.total == 0 && account.shared == 0
        })
    }

    /// Removes a closed account without pages. Returns its owner.
    pub fn take_empty(&mut self) -> Option<DomId> {
        let empty = |account: &Account| account.closed && account.total == 0 && account.shared == 0;
        let place = self.sorted.iter().position(empty)?;
        Some(self.sorted.remove(place).owner)
    }

    /// Returns all accounts.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.sorted.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{Accounts, SLOTS_EACH};
    use crate::id::DomId;

    #[test]
    fn no_domain_takes_the_slots_that_others_need() {
        const ALL: u32 = 2016;
        let mut accounts = Accounts::new();
        let domains = (1..=40).map(DomId);
        for domain in domains.clone() {
            assert!(accounts.open(domain, 1000));
        }
        // One takes what it can get.
        let mut greedy = 0;
        while accounts.take_slot(DomId(1), ALL) {
            greedy += 1;
        }
        assert_eq!(greedy, ALL / 2);
        // There is enough for others, which get their share and nothing more.
        for domain in domains.clone().skip(1).take(30) {
            let got = (0..ALL)
                .take_while(|_| accounts.take_slot(domain, ALL))
                .count();
            assert_eq!(got as u32, SLOTS_EACH);
        }
        for _ in 0..greedy {
            accounts.give_slot(DomId(1));
        }
        assert!(!accounts.take_slot(DomId(99), ALL), "nobody");
        assert_eq!(accounts.get(DomId(1)).map(|account| account.slots), Some(0));
        assert!((0..SLOTS_EACH).all(|_| accounts.take_slot(DomId(40), ALL)));
    }
}

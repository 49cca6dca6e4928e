//! Memory: every RAM frame has one owner, one use and a reference count.
//!
//! | file | contents |
//! |---|---|
//! | `frame_table` | owner, use and count of each frame (the source of truth) |
//! | `page_alloc` | the free frames |
//! | `account` | number of frames per domain |
//! | `pinned` | references that drop themselves |
//! | `p2m` | map from guest frames to machine frames |
//! | `vmid` | VMIDs in use |
//! | `heap` | growth of Rust's heap |
//! | `audit` | comparison of counts, lists and accounts with the tables |
//!
//! Invariants:
//! 1. One reference per place that holds a frame number: each p2m entry of a RAM type, each grant mapping, each
//!    [`FrameRef`]; for `Shared` and `Direct` frames one more, the hypervisor's own.
//! 2. A page that a domain gets is zero, and the zeroes are in memory, not only in a cache (XSA-364).
//! 3. A page without references counts as its owner's until the allocator has it back.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use armv7::addr::Mfn;
use armv7::frame::{self, SharedPage};
use spin::Once;

use crate::id::DomId;
use crate::sync::{Lock, rank};

use account::Account;
use frame_table::{FrameTable, Kind, State, Use};
use page_alloc::{Block, PageAllocator, Purpose};

pub mod account;
pub mod audit;
pub mod frame_table;
pub mod heap;
pub mod p2m;
pub mod page_alloc;
pub mod pinned;
pub mod vmid;

pub use pinned::{FrameRef, PinnedPage};

/// Cleans a page of the hypervisor's address space to the point of coherency.
pub type CleanPage = fn(&SharedPage);

/// Maximum number of frames that [`Memory::alloc_hyp_frames`] returns.
const MAX_FRAMES_AT_ONCE: u32 = 64;

/// Reason a domain got no pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocError {
    /// No free block of that size, or the rest is claimed by other domains.
    NoMemory,
    /// The domain would exceed its limit.
    OverLimit,
    /// The domain has no account, or it is closed.
    NoAccount,
    /// Some of the wanted frames are not free.
    NotFree,
    /// The budget of pages to zero is used up; retry.
    Zeroing,
}

/// All RAM of the machine; in tests, a part of the arena.
pub struct Memory {
    frames: FrameTable,
    /// End of the direct map.
    direct_end: Mfn,
    pages: Lock<PageAllocator, { rank::PAGES }>,
    clean: CleanPage,
    /// A closed account has become empty. Set under the lock but read without it, as a hint.
    emptied: AtomicBool,
    /// VMIDs in use.
    pub vmids: vmid::Vmids,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} frames)", self.frames.frames())
    }
}

static MEMORY: Once<Memory> = Once::new();

/// Makes `memory` the machine's. Only the first call has an effect.
pub fn init(memory: Memory) -> &'static Memory {
    MEMORY.call_once(|| memory)
}

/// Returns the machine's memory.
///
/// # Panics
/// Before [`init`].
pub fn memory() -> &'static Memory {
    MEMORY
        .get()
        .expect("boot makes the memory before the first domain")
}

/// Where a page that the hypervisor shares with a domain comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// All free memory, including the hypervisor's reserve.
    All,
    /// Unclaimed memory outside the reserve: for pages that a domain can have many of.
    Unclaimed,
}

impl Memory {
    /// Returns a memory without free frames. `frames` is all zeroes; the direct map ends at `direct_end`.
    pub fn new(frames: FrameTable, direct_end: Mfn, clean: CleanPage) -> Self {
        Self {
            frames,
            direct_end,
            pages: Lock::new(PageAllocator::new(frames, direct_end)),
            clean,
            emptied: AtomicBool::new(false),
            vmids: vmid::Vmids::new(),
        }
    }

    /// Returns the frame table.
    pub fn frames(&self) -> &FrameTable {
        &self.frames
    }

    /// Returns the frame's state.
    pub fn state(&self, mfn: Mfn) -> State {
        self.frames.state(mfn)
    }

    // Boot.

    /// Adds a RAM bank, free and dirty. Returns false if the frame table does not cover it.
    pub fn add_ram(&self, first: Mfn, count: u32) -> bool {
        self.pages.lock().add_ram(first, count)
    }

    /// Takes free frames for `purpose`, before any allocation.
    pub fn reserve(&self, first: Mfn, count: u32, purpose: Use) -> Result<(), AllocError> {
        let taken = self.pages.lock().take_range(first, count);
        taken.ok_or(AllocError::NotFree)?;
        self.frames.make_used(first, purpose);
        Ok(())
    }

    /// Reserves `pages` free frames for the hypervisor: domains cannot allocate them.
    pub fn set_hyp_reserve(&self, pages: u32) {
        self.pages.lock().set_hyp_reserve(pages);
    }

    /// Frees frames of [`Memory::reserve`], such as a copied boot module. They are scrubbed before reuse.
    pub fn release(&self, first: Mfn, count: u32) {
        if !self.frames.covers(first, count) {
            return;
        }
        for n in 0..count {
            if let Some(mfn) = first.checked_add(n) {
                self.frames.make_inner(mfn, true);
            }
        }
        self.pages.lock().give(first, count, true);
    }

    /// Gives `owner` free frames as memory mapped 1:1. Not scrubbed, as boot has put data there. Each frame has two
    /// references: the reservation's, and one for its future p2m entry.
    pub fn alloc_direct(&self, owner: DomId, first: Mfn, count: u32) -> Result<(), AllocError> {
        let mut pages = self.pages.lock();
        let account = pages.accounts.get(owner).ok_or(AllocError::NoAccount)?;
        if account.closed || account.limit.saturating_sub(account.total) < count {
            return Err(AllocError::OverLimit);
        }
        pages.take_range(first, count).ok_or(AllocError::NotFree)?;
        pages.accounts.add_ram(owner, count);
        drop(pages);
        self.make_live(first, count, Kind::Direct, owner, 2);
        Ok(())
    }

    /// Gives `owner` zeroed frames that [`Memory::reserve`] has kept for a domain, each with one reference: its future p2m
    /// entry's, or the reservation's for [`Kind::Direct`].
    pub fn alloc_kept(
        &self,
        owner: DomId,
        first: Mfn,
        count: u32,
        kind: Kind,
    ) -> Result<(), AllocError> {
        if self.state(first) != State::Used(Use::Domain) {
            return Err(AllocError::NotFree);
        }
        let mut pages = self.pages.lock();
        let account = pages.accounts.get(owner).ok_or(AllocError::NoAccount)?;
        if account.closed || account.limit.saturating_sub(account.total) < count {
            return Err(AllocError::OverLimit);
        }
        pages.accounts.add_ram(owner, count);
        drop(pages);
        for n in 0..count {
            if let Some(mfn) = first.checked_add(n) {
                self.frames.make_inner(mfn, true);
            }
        }
        self.scrub_frames(first, count, u32::MAX);
        self.make_live(first, count, kind, owner, 1);
        Ok(())
    }

    // The hypervisor's own pages.

    /// Allocates `1 << order` zeroed frames in the direct map.
    pub fn alloc_hyp(&self, order: u32) -> Option<Mfn> {
        let block = self.pages.lock().take(order, Purpose::Hypervisor)?;
        self.scrub(block);
        self.frames.make_used(block.first, Use::Hypervisor);
        Some(block.first)
    }

    /// Allocates `1 << order` frames in the direct map with undefined contents.
    pub fn alloc_hyp_unscrubbed(&self, order: u32) -> Option<Mfn> {
        let block = self.pages.lock().take(order, Purpose::Hypervisor)?;
        self.frames.make_used(block.first, Use::Hypervisor);
        Some(block.first)
    }

    /// Frees a block of [`Memory::alloc_hyp`].
    pub fn free_hyp(&self, first: Mfn, order: u32) {
        assert!(
            self.frames.state(first) == State::Used(Use::Hypervisor),
            "a hypervisor page is freed once"
        );
        self.release(first, 1 << order);
    }

    /// Allocates up to `most` adjacent frames in the direct map, with undefined contents. Each may be freed separately.
    pub fn alloc_hyp_frames(&self, most: u32) -> Option<(Mfn, u32)> {
        let mut pages = self.pages.lock();
        let order = most.clamp(1, MAX_FRAMES_AT_ONCE).ilog2();
        let block = pages
            .take(order, Purpose::Hypervisor)
            .or_else(|| pages.take(0, Purpose::Hypervisor))?;
        drop(pages);
        let count = 1 << block.order;
        for n in 0..count {
            if let Some(mfn) = block.first.checked_add(n) {
                self.frames.make_used(mfn, Use::Hypervisor);
            }
        }
        Some((block.first, count))
    }

    /// Frees frames of [`Memory::alloc_hyp_frames`], or blocks of order 0.
    pub fn free_hyp_frames(&self, first: Mfn, count: u32) {
        for n in 0..count {
            let own = first
                .checked_add(n)
                .is_some_and(|mfn| self.frames.state(mfn) == State::Used(Use::Hypervisor));
            assert!(own, "a hypervisor page is freed once");
        }
        self.release(first, count);
    }

    /// Returns a zeroed page in the direct map that the hypervisor keeps for `owner` and shares with it. The caller
    /// owns the reference: [`Memory::put`] drops it, and frees the page once it is no longer mapped.
    #[inline(never)]
    pub fn alloc_shared(&self, owner: DomId, source: Source) -> Result<Mfn, AllocError> {
        let mut pages = self.pages.lock();
        let open = |account: &&mut Account| !account.closed;
        if pages.accounts.get_mut(owner).filter(open).is_none() {
            return Err(AllocError::NoAccount);
        }
        if source == Source::Unclaimed && pages.guest_pages_at_hand() <= pages.accounts.claimed() {
            return Err(AllocError::NoMemory);
        }
        let block = pages
            .take(0, Purpose::Hypervisor)
            .ok_or(AllocError::NoMemory)?;
        if let Some(account) = pages.accounts.get_mut(owner) {
            account.shared += 1;
        }
        drop(pages);
        self.scrub(block);
        self.make_live(block.first, 1, Kind::Shared, owner, 1);
        Ok(block.first)
    }

    // Pages of domains.

    /// Opens the account of a new domain. Returns false if the id still has pages, or the heap is full.
    pub fn open_account(&self, owner: DomId, limit: u32) -> bool {
        self.pages.lock().accounts.open(owner, limit)
    }

    /// Returns the domain's account.
    pub fn account(&self, owner: DomId) -> Option<Account> {
        self.pages.lock().accounts.get(owner).copied()
    }

    /// Sets `max_pages`. Returns false if the domain has no account.
    pub fn set_limit(&self, owner: DomId, limit: u32) -> bool {
        let mut pages = self.pages.lock();
        let account = pages.accounts.get_mut(owner);
        account.map(|account| account.limit = limit).is_some()
    }

    /// Claims `pages` for `owner`'s future allocations (0 cancels). Returns false if too few are free.
    pub fn set_claim(&self, owner: DomId, pages: u32) -> bool {
        let mut allocator = self.pages.lock();
        let free = allocator.guest_pages();
        allocator.accounts.set_claim(owner, pages, free)
    }

    /// Closes the account of a destroyed domain. Returns whether it is empty. If not, the id may be reused only after
    /// [`Memory::take_emptied`] has returned it.
    pub fn close_account(&self, owner: DomId) -> bool {
        let mut pages = self.pages.lock();
        let empty = pages.accounts.close(owner);
        if empty {
            self.emptied.store(true, Ordering::Relaxed);
        }
        empty
    }

    /// Removes an account that is closed and empty, and returns its domain. Cheap if there is none.
    pub fn take_emptied(&self) -> Option<DomId> {
        if !self.emptied.load(Ordering::Relaxed) {
            return None;
        }
        let mut pages = self.pages.lock();
        let owner = pages.accounts.take_empty();
        if owner.is_none() {
            self.emptied.store(false, Ordering::Relaxed);
        }
        owner
    }

    fn check_account(pages: &PageAllocator, owner: DomId, order: u32) -> Result<u32, AllocError> {
        if order > page_alloc::MAX_ORDER {
            return Err(AllocError::NoMemory);
        }
        let count = 1 << order;
        let account = pages.accounts.get(owner).ok_or(AllocError::NoAccount)?;
        if account.closed {
            return Err(AllocError::NoAccount);
        }
        if account.limit.saturating_sub(account.total) < count {
            return Err(AllocError::OverLimit);
        }
        let others = pages.accounts.claimed() - account.claim;
        if pages.guest_pages_at_hand().saturating_sub(others) < count {
            return Err(AllocError::NoMemory);
        }
        Ok(count)
    }

    /// Allocates `1 << order` adjacent, aligned, zeroed frames for `owner`, each with one reference for its future p2m
    /// entry.
    pub fn alloc_domain_pages(&self, owner: DomId, order: u32) -> Result<Mfn, AllocError> {
        self.alloc_domain_pages_by(owner, order, u32::MAX)
    }

    /// Does as [`Memory::alloc_domain_pages`], but zeroes at most `zeroes` pages. A block with more dirty pages stays
    /// free meanwhile.
    pub fn alloc_domain_pages_by(
        &self,
        owner: DomId,
        order: u32,
        zeroes: u32,
    ) -> Result<Mfn, AllocError> {
        let mut pages = self.pages.lock();
        let count = Self::check_account(&pages, owner, order)?;
        let block = pages
            .take(order, Purpose::Guest)
            .ok_or(AllocError::NoMemory)?;
        if count > zeroes && self.has_dirty(block, zeroes) {
            pages.lend(block);
            drop(pages);
            self.scrub_frames(block.first, count, zeroes);
            self.pages.lock().give_scrubbed(block);
            return Err(AllocError::Zeroing);
        }
        pages.accounts.add_ram(owner, count);
        drop(pages);
        self.scrub(block);
        self.make_live(block.first, count, Kind::Ram, owner, 1);
        Ok(block.first)
    }

    fn make_live(&self, first: Mfn, count: u32, kind: Kind, owner: DomId, references: u32) {
        for n in 0..count {
            if let Some(mfn) = first.checked_add(n) {
                self.frames.make_live(mfn, kind, owner, references);
            }
        }
    }

    /// Takes a reference on a live frame of `owner`. Returns `None` if `owner` does not own it.
    #[inline(always)]
    pub fn get(&self, mfn: Mfn, owner: DomId) -> Option<FrameRef<'_>> {
        let kind = self.frames.get(mfn, owner)?;
        Some(FrameRef::new(self, mfn, owner, kind))
    }

    /// Takes a reference on a live frame of any owner, for callers that may access every domain's memory.
    #[inline(always)]
    pub fn get_any(&self, mfn: Mfn) -> Option<FrameRef<'_>> {
        let (kind, owner) = self.frames.get_any(mfn)?;
        Some(FrameRef::new(self, mfn, owner, kind))
    }

    /// Takes a reference on each of `count` frames of kind `Direct` of `owner`, or on none of them.
    pub fn get_direct(&self, owner: DomId, first: Mfn, count: u32) -> bool {
        for n in 0..count {
            let got = first
                .checked_add(n)
                .is_some_and(|mfn| match self.frames.get(mfn, owner) {
                    Some(Kind::Direct) => true,
                    Some(_) => {
                        self.put(mfn);
                        false
                    }
                    None => false,
                });
            if !got {
                self.put_run(first, n);
                return false;
            }
        }
        true
    }

    /// Drops a reference. The last one frees the frame.
    pub fn put(&self, mfn: Mfn) {
        if let Some(last) = self.frames.put(mfn) {
            self.free_run(mfn, 1, last.owner, last.kind);
        }
    }

    /// Drops a reference on each of `count` frames. Frames without references are freed in runs.
    pub fn put_run(&self, first: Mfn, count: u32) {
        let mut gone: Option<(Mfn, u32, frame_table::Last)> = None;
        for n in 0..count {
            let Some(mfn) = first.checked_add(n) else {
                break;
            };
            let last = self.frames.put(mfn);
            match (&mut gone, last) {
                (Some((_, length, which)), Some(last)) if *which == last => *length += 1,
                (_, last) => {
                    let fresh = last.map(|last| (mfn, 1, last));
                    if let Some((from, length, which)) = core::mem::replace(&mut gone, fresh) {
                        self.free_run(from, length, which.owner, which.kind);
                    }
                }
            }
        }
        if let Some((from, length, which)) = gone {
            self.free_run(from, length, which.owner, which.kind);
        }
    }

    fn free_run(&self, first: Mfn, count: u32, owner: DomId, kind: Kind) {
        let mut pages = self.pages.lock();
        pages.give(first, count, true);
        if pages.accounts.remove(owner, kind, count) {
            self.emptied.store(true, Ordering::Relaxed);
        }
    }

    // Scrubbing.

    /// Zeroes the dirty frames of a block that this CPU has taken.
    fn scrub(&self, block: Block) {
        if block.dirty {
            self.scrub_frames(block.first, 1 << block.order, u32::MAX);
        }
    }

    /// Returns whether a block that this CPU has taken has more than `some` dirty frames.
    fn has_dirty(&self, block: Block, some: u32) -> bool {
        let is_dirty = |n: &u32| {
            let mfn = block.first.checked_add(*n);
            mfn.is_some_and(|mfn| self.frames.is_dirty(mfn))
        };
        let mut dirty = (0..1 << block.order).filter(is_dirty);
        block.dirty && dirty.nth(some as usize).is_some()
    }

    /// Zeroes up to `budget` dirty frames. Returns their number.
    fn scrub_frames(&self, first: Mfn, count: u32, budget: u32) -> u32 {
        let mut done = 0;
        for n in 0..count {
            let Some(mfn) = first.checked_add(n) else {
                break;
            };
            if done == budget {
                break;
            }
            if self.frames.is_dirty(mfn) {
                let reached = frame::with(mfn, |page| {
                    page.zero();
                    (self.clean)(page);
                });
                assert!(reached.is_some(), "every RAM frame can be reached");
                self.frames.make_inner(mfn, false);
                done += 1;
            }
        }
        done
    }

    /// Scrubs about `budget` free frames, for an idle CPU. Returns whether there are more.
    pub fn scrub_some(&self, budget: u32) -> bool {
        let Some(block) = self.pages.lock().take_dirty() else {
            return false;
        };
        let count = 1 << block.order;
        let _ = self.scrub_frames(block.first, count, budget.max(1));
        let dirty = self.has_dirty(block, 0);
        let mut pages = self.pages.lock();
        pages.give_scrubbed(Block { dirty, ..block });
        pages.has_dirty()
    }

    /// Returns whether the direct map reaches `mfn`.
    pub(crate) fn is_direct(&self, mfn: Mfn) -> bool {
        mfn < self.direct_end
    }

    /// Charges `owner` a slot that keeps a page mapped. Returns false if it may not have another.
    pub(crate) fn take_slot(&self, owner: DomId) -> bool {
        let all = armv7::layout::KEPT_FRAMES as u32;
        self.pages.lock().accounts.take_slot(owner, all)
    }

    /// Undoes [`Memory::take_slot`].
    pub(crate) fn give_slot(&self, owner: DomId) {
        self.pages.lock().accounts.give_slot(owner);
    }

    // Figures.

    /// Returns the number of free frames.
    pub fn free_pages(&self) -> u32 {
        self.pages.lock().free_pages()
    }

    /// Returns the number of free frames that domains may get (`physinfo.free_pages`).
    pub fn guest_pages(&self) -> u32 {
        self.pages.lock().guest_pages()
    }

    /// Returns one more than the highest frame number in the table (`XENMEM_maximum_ram_page`).
    pub fn max_page(&self) -> u32 {
        self.frames.first().raw() + self.frames.frames()
    }

    /// Returns the number of frames added at boot.
    pub fn total_pages(&self) -> u32 {
        self.pages.lock().total_pages()
    }

    /// Returns the number of claimed pages.
    pub fn claimed_pages(&self) -> u32 {
        self.pages.lock().accounts.claimed()
    }

    /// Returns the account of the first domain at or above `from`, for listings.
    pub fn account_from(&self, from: DomId) -> Option<Account> {
        let pages = self.pages.lock();
        pages
            .accounts
            .iter()
            .find(|account| account.owner >= from)
            .copied()
    }

    /// Returns all accounts. The lock is not held between items.
    pub fn accounts(&self) -> impl Iterator<Item = Account> {
        let mut next = Some(DomId(0));
        core::iter::from_fn(move || {
            let account = self.account_from(next?)?;
            next = account.owner.0.checked_add(1).map(DomId);
            Some(account)
        })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

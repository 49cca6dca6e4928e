//! Tests with whole domains. On the host every guest pointer leads into guest frame 0, at the pointer's offset in its
//! page.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use armv7::addr::{Gfn, Mfn};
use armv7::frame::{PageRef, SharedPage, page};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::abi::grant_table as abi;
use crate::domain::{Domain, Rights, registry};
use crate::error::Errno;
use crate::hypercall::{Args, Caller, Outcome, Reply};
use crate::id::DomId;
use crate::mem::memory;
use crate::mem::p2m::{Entry, P2mType, Removed, Tlb};
use crate::vcpu::Vcpu;

mod blocks;
mod caches;
mod copying;
mod mapping;
mod tables;

/// Where a test domain has its first page of RAM, beside the one for arguments.
const RAM: u32 = 0x10;
/// How many pages it has from there on.
const PAGES: u32 = 40;
/// Where it has nothing.
const HOLE: u32 = 0x1000;

thread_local! {
    /// Flushes of any stage 2.
    static FLUSHES: Cell<u32> = const { Cell::new(0) };
    /// A granter that must still know each grant in use when a flush happens.
    static WATCHED: RefCell<Option<Arc<Domain>>> = const { RefCell::new(None) };
    /// Entries that it had in use at the last flush.
    static PINNED: Cell<u32> = const { Cell::new(0) };
}

const TLB: Tlb = Tlb {
    flush: |_| {
        FLUSHES.set(FLUSHES.get() + 1);
        WATCHED.with_borrow(|watched| {
            if let Some(domain) = watched {
                // Tried, as the flush is under a lock of a higher rank.
                let grants = domain.grants.try_lock().unwrap();
                PINNED.set(grants.pinned());
            }
        });
    },
    publish: || (),
};

fn gfn(n: u32) -> Gfn {
    Gfn::new(u64::from(n)).unwrap()
}

/// A domain with a vCPU, known to the registry for as long as this lives.
struct Guest {
    domain: Arc<Domain>,
    vcpu: Arc<Vcpu>,
}

impl Guest {
    fn new(rights: Rights) -> Self {
        let ram: Vec<u32> = core::iter::once(0).chain(RAM..RAM + PAGES).collect();
        let (domain, vcpu) = crate::domain::testing::guest(rights, TLB, &ram);
        Self { domain, vcpu }
    }

    fn control() -> Self {
        Self::new(Rights::DOM0)
    }

    fn plain() -> Self {
        Self::new(Rights::GUEST)
    }

    fn id(&self) -> u16 {
        self.domain.id.0
    }

    fn entry(&self, at: u32) -> Option<Entry> {
        self.domain.p2m.lock().lookup(gfn(at))
    }

    fn mfn(&self, at: u32) -> Mfn {
        self.entry(at).unwrap().mfn
    }

    fn page(&self, at: u32) -> &'static SharedPage {
        page(self.mfn(at)).unwrap()
    }

    fn total(&self) -> u32 {
        memory().account(self.domain.id).unwrap().total
    }

    /// Writes an entry of the grant table.
    fn grant_with(&self, grant_ref: u32, flags: u16, by: &Guest, frame: u32) {
        let grants = self.domain.grants.lock();
        let entry = abi::GrantEntryV1 {
            flags,
            domid: by.id(),
            frame,
        };
        let table = grants.frame(grant_ref / 512).unwrap().page();
        assert!(table.write(grant_ref as usize % 512 * 8, entry.as_bytes()));
    }

    fn grant(&self, grant_ref: u32, by: &Guest, frame: u32) {
        self.grant_with(grant_ref, abi::GTF_PERMIT_ACCESS, by, frame);
    }

    fn flags(&self, grant_ref: u32) -> u16 {
        let grants = self.domain.grants.lock();
        let table = grants.frame(grant_ref / 512).unwrap().page();
        let flags = table.u16_at(grant_ref as usize % 512 * 8).unwrap();
        flags.load(Ordering::Relaxed)
    }

    /// Puts `kind` at `at`, whatever was there.
    fn force(&self, at: u32, mfn: Mfn, kind: P2mType) {
        let mut removed = Removed::new();
        let mut p2m = self.domain.p2m.lock();
        p2m.replace(gfn(at), mfn, kind, &mut removed).unwrap();
        p2m.release(removed);
    }

    fn call(&self, op: u32, at: u32, count: u32) -> Outcome {
        self.call_with(Args([op, at, count, 3, 4]))
    }

    fn call_with(&self, args: Args) -> Outcome {
        let caller = Caller {
            domain: &self.domain,
            vcpu: &self.vcpu,
        };
        super::call(&caller, &args)
    }

    /// Places `ops` as the argument.
    fn place<T: IntoBytes + Immutable>(&self, ops: &[T]) {
        assert!(self.page(0).write(0, ops.as_bytes()));
    }

    /// Element `n` of the argument.
    fn fetch<T: FromBytes + IntoBytes + FromZeros>(&self, n: usize) -> T {
        let mut op = T::new_zeroed();
        let offset = n * size_of::<T>();
        assert!(self.page(0).read(offset, op.as_mut_bytes()));
        op
    }

    /// Carries out an operation on all of `ops`, which succeeds as a call, and returns what became of them.
    fn all<T>(&self, number: u32, ops: &[T]) -> Vec<T>
    where
        T: FromBytes + IntoBytes + FromZeros + Immutable,
    {
        self.place(ops);
        let mut outcome = self.call(number, 0, ops.len() as u32);
        while let Ok(Reply::Again(args)) = outcome {
            outcome = self.call_with(args);
        }
        assert_eq!(outcome, Ok(Reply::OK));
        (0..ops.len()).map(|n| self.fetch(n)).collect()
    }

    /// Returns the same with one.
    fn one<T>(&self, number: u32, op: &T) -> T
    where
        T: FromBytes + IntoBytes + FromZeros + Immutable + Clone,
    {
        self.all(number, core::slice::from_ref(op)).remove(0)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        registry::remove(self.domain.id);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let guest = Guest::plain();
    assert_eq!(guest.call(13, 0, 1), Err(Errno::NoSys));
    assert_eq!(guest.call(abi::OP_DUMP_TABLE, 0, 1), Err(Errno::NoSys));
    assert_eq!(guest.call(abi::OP_COPY, 0, 1 << 31), Err(Errno::Inval));
    assert_eq!(guest.call(abi::OP_COPY | 1 << 12, 0, 1), Err(Errno::Inval));
    assert_eq!(guest.call(abi::OP_COPY, 0, 0), Ok(Reply::OK));
    assert_eq!(
        guest.call(abi::OP_COPY, u32::MAX - 8, 1),
        Err(Errno::Fault),
        "an element that leaves the address space"
    );
}

#[test]
fn a_long_array_goes_on_where_it_stopped() {
    let guest = Guest::plain();
    let outcome = guest.call(abi::OP_SWAP_GRANT_REF, 0x100, 65);
    let Ok(Reply::Again(args)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        args,
        Args([abi::OP_SWAP_GRANT_REF, 0x100 + 64 * 12, 1, 3, 4])
    );
    assert_eq!(guest.call_with(args), Ok(Reply::OK));
}

//! The same rules with a granter that really runs at the same time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::{GRANTER, MAPPER, Memory, Page, REF, gfn, mfn, shared, table};
use crate::abi::grant_table::{
    GTF_INVALID, GTF_PERMIT_ACCESS, GTF_READING, GTF_WRITING, GrantError,
};
use crate::grant::{Access, GrantHandle, GrantRef, GrantTable, Mapping, Step};
use crate::id::DomId;
use crate::sync::{Lock, rank};

type Locked<T> = Lock<T, { rank::GRANT }>;

const BOTH: u16 = GTF_READING | GTF_WRITING;

/// A table and the memory behind its grants.
struct Domain {
    table: Locked<GrantTable<Page>>,
    memory: Lock<Memory, { rank::PAGES }>,
}

impl Domain {
    fn new() -> Self {
        Self {
            table: Lock::new(table(1, 1, 2)),
            memory: Lock::new(Memory::new()),
        }
    }

    fn acquire(&self, by: DomId, access: Access) -> Result<armv7::addr::Mfn, GrantError> {
        let mut table = self.table.lock();
        let pinned = table.acquire(REF, by, access, &mut *self.memory.lock())?;
        Ok(pinned.mfn)
    }

    fn release(&self, grant_ref: GrantRef, access: Access) {
        let mut table = self.table.lock();
        table.release(grant_ref, access, &mut *self.memory.lock());
    }
}

#[test]
fn a_granter_that_keeps_the_protocol_never_takes_back_what_is_in_use() {
    const ROUNDS: u32 = 5_000;
    let domain = Domain::new();
    let page = shared(&domain.table.lock(), 0);
    let offset = REF.0 as usize * 8;
    let flags = page.u16_at(offset).unwrap();
    let frame = page.u32_at(offset + 4).unwrap();
    page.u16_at(offset + 2)
        .unwrap()
        .store(MAPPER.0, Ordering::Relaxed);
    let in_use = AtomicBool::new(false);
    let done = AtomicBool::new(false);

    thread::scope(|scope| {
        scope.spawn(|| {
            let mut used = 0;
            while used < ROUNDS {
                if domain.acquire(MAPPER, Access::Write).is_ok() {
                    in_use.store(true, Ordering::SeqCst);
                    assert_eq!(flags.load(Ordering::SeqCst) & BOTH, BOTH);
                    in_use.store(false, Ordering::SeqCst);
                    domain.release(REF, Access::Write);
                    used += 1;
                }
                thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                number = (number + 1) % 7;
                frame.store(0x10 + number, Ordering::Relaxed);
                flags.store(GTF_PERMIT_ACCESS, Ordering::Release);
                loop {
                    let idle = flags.load(Ordering::Relaxed) & !BOTH;
                    let taken_back = flags.compare_exchange(
                        idle,
                        GTF_INVALID,
                        Ordering::SeqCst,
                        Ordering::SeqCst,
                    );
                    if taken_back.is_ok() {
                        assert!(!in_use.load(Ordering::SeqCst), "in use, yet taken back");
                        break;
                    }
                    thread::yield_now();
                }
            }
        });
    });
    assert_eq!(flags.load(Ordering::SeqCst) & BOTH, 0);
    assert_eq!(domain.memory.lock().total(), 0);
    assert_eq!(domain.table.lock().unstable(), 0);
}

#[test]
fn a_granter_that_scribbles_gains_and_breaks_nothing() {
    const ROUNDS: u32 = 5_000;
    let domain = Domain::new();
    let page = shared(&domain.table.lock(), 0);
    let word = page.u32_at(REF.0 as usize * 8).unwrap();
    let frame = page.u32_at(REF.0 as usize * 8 + 4).unwrap();
    let done = AtomicBool::new(false);
    let owned = Memory::new();

    thread::scope(|scope| {
        scope.spawn(|| {
            let granted = u32::from(MAPPER.0) << 16 | u32::from(GTF_PERMIT_ACCESS);
            let mut random = 1_u32;
            while !done.load(Ordering::Relaxed) {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                frame.store(0x10 + (random >> 28), Ordering::Relaxed);
                let noise = if random & 1 << 20 != 0 {
                    random >> 24
                } else {
                    0
                };
                word.store(granted ^ noise, Ordering::Relaxed);
            }
        });
        let mapper = || {
            let mut used = 0;
            while used < ROUNDS {
                let access = [Access::Read, Access::Write][used as usize % 2];
                let Ok(first) = domain.acquire(MAPPER, access) else {
                    thread::yield_now();
                    continue;
                };
                used += 1;
                assert!(owned.map.values().any(|frame| frame.mfn == first));
                if let Ok(second) = domain.acquire(MAPPER, Access::Read) {
                    assert_eq!(first, second, "one entry, one frame");
                    domain.release(REF, Access::Read);
                }
                domain.release(REF, access);
            }
        };
        let mappers = [scope.spawn(mapper), scope.spawn(mapper)];
        for mapper in mappers {
            mapper.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(domain.table.lock().is_idle());
    assert_eq!(domain.memory.lock().total(), 0);
}

#[test]
fn two_unmaps_of_one_handle_succeed_once() {
    const ROUNDS: u32 = 5_000;
    let domain = Domain::new();
    let round = AtomicU32::new(0);
    let arrived = AtomicU32::new(0);
    let successes = AtomicU32::new(0);
    let mapping = Mapping {
        granter: GRANTER,
        grant_ref: REF,
        access: Access::Read,
        gfn: gfn(5),
        mfn: mfn(0x100),
    };

    thread::scope(|scope| {
        let unmapper = || {
            for n in 1..=ROUNDS {
                while round.load(Ordering::Acquire) < n {
                    thread::yield_now();
                }
                let outcome = domain.table.lock().unmap(GrantHandle(0), 5 << 12);
                match outcome {
                    Ok(taken) => {
                        assert_eq!(taken, Some(mapping));
                        successes.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => assert_eq!(error, GrantError::BadHandle),
                }
                arrived.fetch_add(1, Ordering::AcqRel);
            }
        };
        scope.spawn(unmapper);
        scope.spawn(unmapper);
        for n in 1..=ROUNDS {
            let handle = domain.table.lock().room().unwrap().record(mapping);
            assert_eq!(handle, GrantHandle(0));
            round.store(n, Ordering::Release);
            while arrived.load(Ordering::Acquire) < 2 * n {
                thread::yield_now();
            }
        }
    });
    assert_eq!(successes.into_inner(), ROUNDS);
    assert!(domain.table.lock().is_idle());
}

#[test]
fn domains_that_map_from_each_other_and_from_themselves_never_wait_for_ever() {
    const ROUNDS: u32 = 3_000;
    let domains = [Domain::new(), Domain::new()];
    for (n, domain) in domains.iter().enumerate() {
        let table = domain.table.lock();
        super::grant(&table, REF.0, DomId(1 - n as u16), 0x10);
        super::grant(&table, REF.0 + 1, DomId(n as u16), 0x11);
    }

    thread::scope(|scope| {
        for own in 0..2_usize {
            let domains = &domains;
            scope.spawn(move || {
                for n in 0..ROUNDS {
                    let (granter, at) =
                        [(1 - own, REF), (own, GrantRef(REF.0 + 1))][n as usize % 2];
                    map_and_unmap(domains, own, granter, at);
                }
            });
        }
    });
    for domain in domains {
        let mut table = domain.table.lock();
        assert!(table.is_idle());
        table.close();
        assert_eq!(table.release_next(&mut 1000), Step::Done);
        assert_eq!(domain.memory.lock().total(), 0);
    }
}

/// The sequence of the hypercalls, with each lock taken by itself.
fn map_and_unmap(domains: &[Domain; 2], own: usize, granter: usize, grant_ref: GrantRef) {
    let by = DomId(own as u16);
    let pinned = {
        let mut table = domains[granter].table.lock();
        let mut memory = domains[granter].memory.lock();
        table
            .acquire(grant_ref, by, Access::Write, &mut *memory)
            .unwrap()
    };
    let mapping = Mapping {
        granter: DomId(granter as u16),
        grant_ref,
        access: Access::Write,
        gfn: gfn(5),
        mfn: pinned.mfn,
    };
    let handle = domains[own].table.lock().room().unwrap().record(mapping);
    let taken = domains[own]
        .table
        .lock()
        .unmap(handle, 5 << 12)
        .unwrap()
        .unwrap();
    domains[granter].release(taken.grant_ref, taken.access);
}

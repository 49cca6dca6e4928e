//! Whole domains for tests, in the memory that `mem::testing` has for the machine.

use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicU16, Ordering};

use armv7::addr::Gfn;
use armv7::cpu::{CpuId, CpuSet};
use armv7::guest::Identity;
use armv7::pmu;

use super::{Domain, GicMap, Rights, Spec, create};
use crate::grant::Limits;
use crate::id::{DomId, IntId, VcpuId};
use crate::mem::p2m::{P2mType, PoolLimit, Tlb};
use crate::mem::testing;
use crate::sched::{self, PoolId, UnitParams};
use crate::vcpu::{Timers, Vcpu};

/// The TLB operations of tables that no CPU walks.
pub const NO_TLB: Tlb = Tlb {
    flush: |_| (),
    publish: || (),
};

/// The highest number of pages of a test domain.
pub const MAX_PAGES: u32 = 200;

/// The highest event port of a test domain: the last of the two-level form on 32-bit Arm.
const MAX_PORT: u32 = 1023;

/// Initializes the machine's scheduler with one CPU.
pub fn scheduler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| assert!(sched::init(1_000_000, CpuSet::of(CpuId::BOOT), 0).is_some()));
}

/// Returns a domain in the registry with one vCPU that is off, and a page of RAM at each of `ram`.
pub fn guest(rights: Rights, tlb: Tlb, ram: &[u32]) -> (Arc<Domain>, Arc<Vcpu>) {
    limited(rights, tlb, ram, MAX_PAGES, PoolLimit::Unlimited)
}

/// [`guest`] that may have `pages` pages, and `tables` for its map.
pub fn limited(
    rights: Rights,
    tlb: Tlb,
    ram: &[u32],
    pages: u32,
    tables: PoolLimit,
) -> (Arc<Domain>, Arc<Vcpu>) {
    static NEXT: AtomicU16 = AtomicU16::new(100);
    scheduler();
    let id = DomId(NEXT.fetch_add(1, Ordering::Relaxed));
    let memory = testing::machine();
    let spec = Spec {
        id,
        rights,
        max_vcpus: 1,
        nr_spis: 32,
        event_irq: IntId::new(31).unwrap(),
        gic: GicMap {
            first_page: 0x3000,
            pages: 1,
        },
        max_port: MAX_PORT,
        grants: Limits::new(4, 2).unwrap(),
        max_pages: pages,
        tables,
        pool: PoolId::FIRST,
        monitors: pmu::Access::Traps,
    };
    let domain = create::domain_with(&spec, tlb).unwrap();
    for n in ram {
        let mfn = memory.alloc_domain_pages(id, 0).unwrap();
        let gfn = Gfn::new(u64::from(*n)).unwrap();
        let mapped = domain.p2m.lock().map(gfn, mfn, 1, P2mType::RamRw, 1);
        assert_eq!(mapped, Ok(1));
    }
    let unit = sched::lock()
        .add(UnitParams {
            group: domain.group.id(),
            hard: CpuSet::ALL,
            soft: CpuSet::ALL,
        })
        .unwrap();
    let timers = Timers::new(unit).unwrap();
    let vcpu = Arc::new(Vcpu::new(
        id,
        VcpuId::ZERO,
        unit,
        timers,
        Identity::default(),
    ));
    (domain, vcpu)
}

//! A machine with dom0 on the host, whose one vCPU makes hypercalls as a toolstack does, and what must be as before once all of it
//! is undone.

use std::cell::Cell;
use std::sync::Arc;

use armv7::addr::{Gfn, Mfn};
use armv7::cpu::CpuSet;
use armv7::frame::page;
use armv7::pmu::Access;
use krypton::abi::domctl::{
    self, CreateDomain, Domctl, PagingMempool, VcpuContextOp, VcpuGuestContext,
};
use krypton::abi::handle::GuestHandle;
use krypton::abi::memory::{self as memory_abi, MemAcquireResource, MemoryReservation};
use krypton::call::{Args, Caller, Reply};
use krypton::domain::create;
use krypton::domain::{Domain, Rights, Spec, audit, guest_map, registry};
use krypton::error::Errno;
use krypton::grant::Limits;
use krypton::hypercall;
use krypton::id::{DomId, IntId};
use krypton::mem::memory;
use krypton::mem::p2m::{P2mType, PoolLimit};
use krypton::sched::{self, PoolId};
use krypton::time;
use krypton::vcpu::START_CPSR;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

#[path = "host_machine.rs"]
mod host_machine;

pub const DOMCTL: u32 = 36;
pub const MEMORY_OP: u32 = 12;
pub const EVENT_CHANNEL_OP: u32 = 32;

/// Frames of the machine (16 MiB).
const FRAMES: u32 = 4096;
/// Where the guest has its first page of RAM.
pub const RAM: u64 = 0x4_0000;
/// Pages that it gets one by one, after one of 2 MiB.
const SMALL_PAGES: usize = 8;
/// In the argument page: the operation, and what it points to.
pub const OPERATION: u32 = 0;
pub const POINTED: u32 = 2048;

/// dom0, with one page of RAM at 0: on the host every guest pointer leads there, at its offset in a page.
pub struct Toolstack {
    pub domain: Arc<Domain>,
    /// How often it continues calls before it gives a domain up.
    pub patience: Cell<u32>,
}

pub type Done = Result<u32, Errno>;

impl Toolstack {
    /// Makes the machine.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let memory = host_machine::set_up(FRAMES);
        let domain = create::domain(&Spec {
            id: DomId::DOM0,
            rights: Rights::DOM0,
            max_vcpus: 1,
            nr_spis: 32,
            event_irq: IntId::new(16).unwrap(),
            gic: guest_map::Layout::new().unwrap().gic(),
            max_port: 1023,
            grants: Limits::new(4, 4).unwrap(),
            max_pages: 16,
            tables: PoolLimit::Unlimited,
            pool: PoolId::FIRST,
            monitors: Access::Traps,
        })
        .unwrap();
        assert_eq!(create::next_vcpu(&domain, |_| CpuSet::ALL), Ok(true));
        let page = memory.alloc_domain_pages(DomId::DOM0, 0).unwrap();
        let gfn = Gfn::new(0).unwrap();
        domain
            .p2m
            .lock()
            .map(gfn, page, 1, P2mType::RamRw, 1)
            .unwrap();
        let patience = Cell::new(u32::MAX);
        Self { domain, patience }
    }

    pub fn page(&self) -> &'static armv7::frame::SharedPage {
        let entry = self.domain.p2m.lock().lookup(Gfn::new(0).unwrap());
        page(entry.unwrap().mfn).unwrap()
    }

    pub fn place<T: IntoBytes + Immutable + ?Sized>(&self, at: u32, value: &T) {
        assert!(self.page().write(at as usize, value.as_bytes()));
    }

    pub fn fetch<T: FromBytes + IntoBytes + FromZeros>(&self, at: u32) -> T {
        let mut value = T::new_zeroed();
        assert!(self.page().read(at as usize, value.as_mut_bytes()));
        value
    }

    /// Makes a hypercall until it is finished.
    pub fn call(&self, number: u32, args: [u32; 5]) -> Done {
        let caller = Caller {
            domain: &self.domain,
            vcpu: &self.domain.vcpus()[0],
        };
        let mut args = Args(args);
        loop {
            match hypercall::call(&caller, number, &args)? {
                Reply::Value(value) => return Ok(value),
                Reply::Unmask => return Ok(0),
                Reply::Again(next) => args = next,
            }
            let left = self.patience.get().checked_sub(1);
            self.patience.set(left.ok_or(Errno::Intr)?);
        }
    }

    pub fn domctl<T: IntoBytes + Immutable>(&self, cmd: u32, id: u16, body: &T) -> Done {
        self.place(OPERATION, &[0u8; size_of::<Domctl>()]);
        self.place(OPERATION, &[cmd, domctl::INTERFACE_VERSION, id.into()]);
        self.place(OPERATION + Domctl::BODY, body);
        self.call(DOMCTL, [OPERATION, 0, 0, 0, 0])
    }

    pub fn create(&self) -> Result<u16, Errno> {
        let config = CreateDomain {
            flags: domctl::CDF_HVM | domctl::CDF_HAP,
            max_vcpus: 2,
            max_evtchn_port: 1023,
            max_grant_frames: 4,
            max_maptrack_frames: 4,
            grant_opts: 1,
            ..CreateDomain::ZERO
        };
        self.domctl(domctl::OP_CREATEDOMAIN, 0xFFFF, &config)?;
        Ok(self.fetch(OPERATION + Domctl::DOMAIN))
    }

    /// Furnishes a new domain as the toolstack does until it runs.
    pub fn furnish(&self, id: u16) -> Result<(), Errno> {
        self.domctl(domctl::OP_MAX_VCPUS, id, &2u32)?;
        self.domctl(
            domctl::OP_SET_PAGING_MEMPOOL_SIZE,
            id,
            &PagingMempool { size: 40 << 12 },
        )?;
        self.domctl(domctl::OP_MAX_MEM, id, &(1u64 << 20))?;
        self.populate(id, 9, &[RAM])?;
        let pages: [u64; SMALL_PAGES] = core::array::from_fn(|n| RAM + 0x1000 + n as u64);
        self.populate(id, 0, &pages)?;
        for _ in 0..2 {
            // alloc_unbound: domain, for dom0, and the port that is answered.
            self.place(OPERATION, &[u32::from(id), 0]);
            self.call(EVENT_CHANNEL_OP, [6, OPERATION, 0, 0, 0])?;
        }
        self.place(POINTED, &[0x100u64, 0x101, 0x102]);
        let grants = MemAcquireResource {
            domid: id,
            resource: memory_abi::RESOURCE_GRANT_TABLE,
            nr_frames: 3,
            frame_list: GuestHandle::from_raw(POINTED.into()),
            ..MemAcquireResource::ZERO
        };
        self.place(OPERATION, &grants);
        self.call(
            MEMORY_OP,
            [memory_abi::OP_ACQUIRE_RESOURCE, OPERATION, 0, 0, 0],
        )?;
        let mut context = VcpuGuestContext::ZERO;
        context.flags = domctl::VGCF_ONLINE;
        context.regs.cpsr = START_CPSR.into();
        self.place(POINTED, &context);
        let first = VcpuContextOp {
            ctxt: GuestHandle::from_raw(POINTED.into()),
            ..VcpuContextOp::ZERO
        };
        self.domctl(domctl::OP_SETVCPUCONTEXT, id, &first)?;
        self.domctl(domctl::OP_UNPAUSEDOMAIN, id, &0u32)?;
        Ok(())
    }

    pub fn populate(&self, id: u16, order: u32, gfns: &[u64]) -> Result<(), Errno> {
        self.place(POINTED, gfns);
        let reservation = MemoryReservation {
            extent_start: GuestHandle::from_raw(POINTED.into()),
            nr_extents: gfns.len() as u64,
            extent_order: order,
            domid: id,
            ..MemoryReservation::ZERO
        };
        self.place(OPERATION, &reservation);
        let done = self.call(
            MEMORY_OP,
            [memory_abi::OP_POPULATE_PHYSMAP, OPERATION, 0, 0, 0],
        )?;
        if done == gfns.len() as u32 {
            Ok(())
        } else {
            Err(Errno::NoMem)
        }
    }

    /// Unmaps what dom0 has of the domain's grant table, and destroys it.
    pub fn destroy(&self, id: u16) {
        for gfn in 0x100u64..0x103 {
            self.place(OPERATION, &[u64::from(DomId::DOM0.0), gfn]);
            let _ = self.call(
                MEMORY_OP,
                [memory_abi::OP_REMOVE_FROM_PHYSMAP, OPERATION, 0, 0, 0],
            );
        }
        self.domctl(domctl::OP_DESTROYDOMAIN, id, &0u32).unwrap();
        // Any domctl forgets what is dead.
        assert_eq!(
            self.domctl(domctl::OP_GETDOMAININFO, id, &0u32),
            Err(Errno::Srch),
            "no domain is left"
        );
    }

    pub fn state(&self) -> State {
        // Closed accounts without pages are forgotten by the next operation.
        let _ = self.domctl(domctl::OP_GETDOMAININFO, 0, &0u32);
        assert_eq!(audit::audit(), Ok(()));
        let scheduler = sched::lock();
        let (units, groups) = (scheduler.units(time::now()).count(), scheduler.groups());
        drop(scheduler);
        State {
            domains: registry::all().map(|domain| domain.id).collect(),
            accounts: memory().accounts().map(|account| account.owner).collect(),
            free: memory().free_pages(),
            claimed: memory().claimed_pages(),
            tables: self.domain.p2m.lock().tables(),
            units,
            groups,
            timers: time::registered(),
            vmids: memory().vmids.in_use(),
        }
    }
}

/// State that must be the same before and after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    domains: Vec<DomId>,
    accounts: Vec<DomId>,
    free: u32,
    claimed: u32,
    tables: u32,
    units: usize,
    groups: usize,
    timers: usize,
    vmids: u32,
}

/// Takes all free frames but `left`, for as long as it lives.
pub struct Hog(Vec<Mfn>);

impl Hog {
    pub fn leave(left: u32) -> Self {
        let mut taken: Vec<Mfn> = core::iter::from_fn(|| memory().alloc_hyp(0)).collect();
        // Adjacent ones are left, as far as they go: what runs out is their number.
        taken.sort();
        for mfn in taken.drain(..left as usize) {
            memory().free_hyp(mfn, 0);
        }
        Self(taken)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        for mfn in &self.0 {
            memory().free_hyp(*mfn, 0);
        }
    }
}

//! Pages for the tests, and a guest that consumes events as Linux does.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use armv7::addr::Mfn;
use armv7::frame::{Kept, PageRef, SharedPage, keep, page};
use armv7::host::frame::FIRST;

use crate::abi::event_channel::fifo::{BUSY, LINK, LINKED, MASKED, PENDING, QUEUES};
use crate::event::{Close, Control, EventTable, Notify, Port, Reset};
use crate::id::{DomId, VcpuId, VcpuSet};

/// The part of the host's arena that these tests use.
const POOL_START: u32 = FIRST + 0xC000;
const POOL_PAGES: u32 = 0x1000;

static FREE: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A zeroed page that goes back to the pool when it is dropped.
pub struct TestPage {
    kept: Kept,
    number: u32,
    life: Arc<()>,
}

impl TestPage {
    pub fn new() -> Self {
        let number = FREE.lock().unwrap().pop();
        let number = number.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        assert!(number < POOL_PAGES, "the tests leak pages");
        let kept = keep(Mfn::new(u64::from(POOL_START + number)).unwrap()).unwrap();
        kept.page().zero();
        Self {
            kept,
            number,
            life: Arc::new(()),
        }
    }

    /// Returns the page as the guest reaches it.
    pub fn guest(&self) -> &'static SharedPage {
        page(self.kept.mfn()).unwrap()
    }

    /// Something that can be upgraded for as long as the page is held.
    pub fn watch(&self) -> Weak<()> {
        Arc::downgrade(&self.life)
    }
}

impl PageRef for TestPage {
    fn page(&self) -> &SharedPage {
        self.kept.page()
    }
}

impl Drop for TestPage {
    fn drop(&mut self) {
        FREE.lock().unwrap().push(self.number);
    }
}

pub type Table = EventTable<TestPage>;

pub const DOM: DomId = DomId(7);
pub const PEER: DomId = DomId(3);

/// Returns a table of a domain with two vCPUs, and its `shared_info` as the guest sees it.
pub fn table() -> (Table, &'static SharedPage) {
    table_of(DOM, u32::MAX, 2)
}

pub fn table_of(dom: DomId, max_port: u32, nr_vcpus: u8) -> (Table, &'static SharedPage) {
    let page = TestPage::new();
    let guest = page.guest();
    (
        EventTable::new(dom, max_port, nr_vcpus, page).unwrap(),
        guest,
    )
}

pub fn vcpu(n: u32) -> VcpuId {
    VcpuId::new(n).unwrap()
}

pub fn upcall(n: u32) -> Notify {
    Notify::upcall(vcpu(n))
}

pub fn wake(n: u32) -> Notify {
    Notify {
        upcall: VcpuSet::EMPTY,
        wake: VcpuSet::only(vcpu(n)),
    }
}

/// Closes a port that has no peer in another domain.
pub fn close(table: &mut Table, port: Port) {
    assert_eq!(table.close(port), Ok(Close::Done));
}

/// Runs a reset to its end. Returns the number of steps.
pub fn reset(table: &mut Table, budget: u32) -> u32 {
    let mut steps = 1;
    loop {
        match table.reset_step(budget).unwrap() {
            Reset::Done => return steps,
            Reset::More => steps += 1,
            Reset::Peer { from, .. } => table.finish_close(from.port),
        }
    }
}

/// A domain with two vCPUs that uses the FIFO ABI as Linux does (drivers/xen/events/events_fifo.c).
pub struct Guest {
    pub info: Vec<(&'static SharedPage, usize)>,
    pub control: Vec<&'static SharedPage>,
    pub array: Vec<&'static SharedPage>,
    /// The guest's own copy of each queue's head.
    heads: Vec<[u32; QUEUES]>,
}

/// Where the guests of these tests put their control blocks and `vcpu_info`.
pub const CONTROL_OFFSET: u32 = 0xF00;
pub const INFO_OFFSET: u32 = 0x780;

impl Guest {
    /// Registers everything for `nr_vcpus` vCPUs, and `pages` pages of words that are all masked.
    pub fn boot(table: &mut Table, nr_vcpus: u32, pages: u32) -> Self {
        let mut guest = Self {
            info: Vec::new(),
            control: Vec::new(),
            array: Vec::new(),
            heads: vec![[0; QUEUES]; nr_vcpus as usize],
        };
        for vcpu in 0..nr_vcpus {
            let control = TestPage::new();
            guest.control.push(control.guest());
            let _ = table.init_control(vcpu, control, CONTROL_OFFSET).unwrap();
            let info = TestPage::new();
            guest.info.push((info.guest(), INFO_OFFSET as usize));
            let _ = table.register_vcpu_info(vcpu, info, INFO_OFFSET).unwrap();
        }
        for _ in 0..pages {
            guest.expand(table);
        }
        guest
    }

    /// The same pages, seen by another CPU of the guest that has consumed nothing yet.
    pub fn another(&self) -> Self {
        Self {
            info: self.info.clone(),
            control: self.control.clone(),
            array: self.array.clone(),
            heads: vec![[0; QUEUES]; self.heads.len()],
        }
    }

    /// Adds a page of masked words.
    pub fn expand(&mut self, table: &mut Table) {
        let page = TestPage::new();
        for word in page.guest().words() {
            word.store(MASKED, Ordering::Relaxed);
        }
        let gfn = self.array.len() as u64;
        self.array.push(page.guest());
        let expanded = table.expand_array(page, gfn);
        assert_eq!(expanded, Ok(Control::Done(Notify::NONE)));
    }

    pub fn word(&self, port: Port) -> &'static AtomicU32 {
        &self.array[port.0 as usize / 1024].words()[port.0 as usize % 1024]
    }

    pub fn ready(&self, vcpu: usize) -> &'static AtomicU32 {
        self.control[vcpu].u32_at(CONTROL_OFFSET as usize).unwrap()
    }

    pub fn head(&self, vcpu: usize, queue: usize) -> &'static AtomicU32 {
        let offset = CONTROL_OFFSET as usize + 8 + queue * 4;
        self.control[vcpu].u32_at(offset).unwrap()
    }

    pub fn take_upcall(&self, vcpu: usize) -> bool {
        let (page, offset) = self.info[vcpu];
        page.u8_at(offset).unwrap().swap(0, Ordering::SeqCst) != 0
    }

    pub fn mask(&self, port: Port) {
        self.word(port).fetch_or(MASKED, Ordering::SeqCst);
    }

    pub fn clear_pending(&self, port: Port) {
        self.word(port).fetch_and(!PENDING, Ordering::SeqCst);
    }

    /// Unmasks; true when the hypervisor must do it because the event is pending.
    pub fn unmask(&self, port: Port) -> bool {
        let word = self.word(port);
        let mut seen = word.load(Ordering::SeqCst);
        loop {
            if seen & MASKED == 0 {
                return false;
            }
            if seen & PENDING != 0 {
                return true;
            }
            let old = seen & !BUSY;
            match word.compare_exchange(old, old & !MASKED, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return false,
                Err(now) => seen = now,
            }
        }
    }

    /// Runs the interrupt handler of `vcpu`. `handle` gets the events that are pending and not masked, with the
    /// queue they were on, and has to clear PENDING. At most `limit` events are looked at.
    pub fn scan(&mut self, vcpu: usize, limit: u32, mut handle: impl FnMut(&Self, Port, usize)) {
        while self.take_upcall(vcpu) {
            let mut left = limit;
            let mut ready = self.ready(vcpu).swap(0, Ordering::SeqCst);
            while ready != 0 && left > 0 {
                let queue = ready.trailing_zeros() as usize;
                if queue >= QUEUES {
                    break;
                }
                left -= 1;
                self.consume(vcpu, queue, &mut ready, &mut handle);
                ready |= self.ready(vcpu).swap(0, Ordering::SeqCst);
            }
        }
    }

    fn consume(
        &mut self,
        vcpu: usize,
        queue: usize,
        ready: &mut u32,
        handle: &mut impl FnMut(&Self, Port, usize),
    ) {
        let mut head = self.heads[vcpu][queue];
        if head == 0 {
            head = self.head(vcpu, queue).load(Ordering::SeqCst);
        }
        let port = Port(head);
        if head as usize >= self.array.len() * 1024 {
            *ready &= !(1 << queue); // only an adversary gets here
            self.heads[vcpu][queue] = 0;
            return;
        }
        let word = self.word(port);
        let next = word.fetch_and(!(LINKED | LINK), Ordering::SeqCst) & LINK;
        if next == 0 {
            *ready &= !(1 << queue);
        }
        let now = word.load(Ordering::SeqCst);
        if now & PENDING != 0 && now & MASKED == 0 {
            handle(self, port, queue);
        }
        self.heads[vcpu][queue] = next;
    }
}

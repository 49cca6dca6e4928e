//! Rows of two domains, and of many: a domain whose kernel answers each event with one.

use core::arch::global_asm;

use guests::domain::{self, Domain, MEMORY};
use guests::event;
use guests::grant;
use guests::memory::Frame;
use guests::{abi, clock, cp15, println};

use crate::measure::{lateness, print, row, taken, timed, until_taken};
use crate::one::{self, Events};

/// Bytes that xl reserves for the tables of a domain with one vCPU and a few MiB (libxl_get_required_paging_memory): 1 MiB
/// for the vCPU and 8 KiB for each MiB.
const POOL: u32 = (1 << 20) + 2 * 8192;
const ORDER_2M: u32 = 9;
const MAX_PAGES: u32 = 4096;

/// Guest-physical, in the answering domain; also in its code.
const SHARED_INFO: u64 = 0x5000_0000 >> 12;

global_asm!(
    // Position-independent, MMU off: GICD 0x03001000, GICC 0x03002000 (abi.md 6.1), shared_info 0x50000000, INTID 31.
    ".balign 8",
    "bench_answer:",
    "movw r8, #0x1000",
    "movt r8, #0x0300",
    "movw r9, #0x2000",
    "movt r9, #0x0300",
    "mov r10, #0x50000000",
    "mov r11, #0",
    "mov r6, #4096",
    "mov r7, #0x40000000",
    "add r7, r7, #0x100000",
    "mov r0, #1",
    "str r0, [r8]",
    "mov r0, #0x80000000",
    "str r0, [r8, #0x100]",
    "mov r0, #0xa0",
    "add r1, r8, #0x400",
    "strb r0, [r1, #31]",
    "mov r0, #0xff",
    "str r0, [r9, #4]",
    "mov r0, #1",
    "str r0, [r9]",
    "1:",
    "dsb",
    "wfi",
    "ldr r0, [r9, #0x0c]",
    "cmp r0, #31",
    "bne 1b",
    "str r0, [r9, #0x10]",
    // Nothing pending any more: upcall, selector, the word of the port.
    "strb r11, [r10]",
    "str r11, [r10, #8]",
    "str r11, [r10, #12]",
    "str r11, [r10, #48]",
    // A word of each of so many pages from 1 MiB on.
    "ldr r0, bench_answer_pages",
    "mov r1, r7",
    "2:",
    "subs r0, r0, #1",
    "strge r11, [r1], r6",
    "bgt 2b",
    "mov r12, #32",
    "mov r0, #4",
    "adr r1, bench_answer_port",
    ".inst 0xe140ea71",
    "b 1b",
    "bench_answer_port:",
    ".word 0",
    "bench_answer_pages:",
    ".word 0",
    "bench_answer_end:",
);

unsafe extern "C" {
    static bench_answer: [u32; 0];
    static bench_answer_port: [u32; 0];
    static bench_answer_pages: [u32; 0];
    static bench_answer_end: [u32; 0];
}

/// A domain that answers, and this domain's port to it.
struct Answerer {
    domain: Domain,
    port: u32,
}

/// A hole in this domain's map.
fn hole() -> Frame {
    let frame = Frame::take();
    assert_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [frame.gfn()], 0), 1);
    frame
}

impl Answerer {
    /// Makes a domain with 2 MiB of memory and starts it.
    fn new(hole: Frame, events: &Events) -> Result<Self, i32> {
        Self::that_writes(0, hole, events)
    }

    /// Makes one that also writes to so many of its pages before each answer, at most half of them.
    fn that_writes(pages: u32, hole: Frame, events: &Events) -> Result<Self, i32> {
        let domain = Domain::create(MAX_PAGES, POOL)?;
        Self::fill(domain, pages, hole, events).inspect_err(|_| {
            domain::unmap(hole);
            domain.destroy().expect("the end of a half-made domain");
        })
    }

    fn fill(domain: Domain, pages: u32, hole: Frame, events: &Events) -> Result<Self, i32> {
        domain.populate(MEMORY, ORDER_2M)?;
        let remote = event::alloc_unbound(domain.0, 0)?;
        assert!(remote < 32);
        match domain.map(MEMORY, hole) {
            0 => copy_code(hole, remote, pages),
            error => return Err(error),
        }
        assert_eq!(domain::unmap(hole), 0);
        domain.place_shared_info(SHARED_INFO)?;
        cp15::disable_interrupts();
        let port = event::bind_interdomain(domain.0, remote)?;
        // A port that is bound is pending at once.
        events.vcpu.take_upcall();
        events.vcpu.take_selector();
        events.shared.clear_pending(port);
        cp15::enable_interrupts();
        domain.start((MEMORY << 12) as u32)?;
        let answerer = Answerer { domain, port };
        answerer.round(events);
        Ok(answerer)
    }

    /// Sends it an event and waits for the answer.
    #[inline(always)]
    fn round(&self, events: &Events) {
        let before = taken();
        event::send(self.port);
        while taken() == before {
            cp15::disable_interrupts();
            if taken() == before {
                cp15::wfi();
            }
            cp15::enable_interrupts();
        }
        events.vcpu.take_upcall();
        events.vcpu.take_selector();
        events.shared.clear_pending(self.port);
    }

    fn end(self) {
        event::close(self.port);
        self.domain.destroy().expect("its end");
    }
}

fn copy_code(to: Frame, port: u32, pages: u32) {
    let (code, end) = ((&raw const bench_answer).cast::<u32>(), (&raw const bench_answer_end).cast::<u32>());
    let words = (end as u32 - code as u32) / 4;
    for word in 0..words {
        // SAFETY: between the two labels.
        to.write(word * 4, unsafe { code.add(word as usize).read() });
    }
    to.write((&raw const bench_answer_port) as u32 - code as u32, port);
    to.write((&raw const bench_answer_pages) as u32 - code as u32, pages);
}

/// Rows with one other domain.
pub fn rows() {
    let events = Events::new();
    let hole = hole();
    let other = Answerer::new(hole, &events).expect("a domain");
    row("evtchn_pingpong_domains", 1000, || other.round(&events));
    row("foreign_map_unmap", 1600, || {
        other.domain.map(MEMORY, hole);
        domain::unmap(hole);
    });
    grant_rows(other.domain, hole);
    memory_rows(other.domain);
    log_rows(&other, hole, &events);
    other.end();
    row("domain_create_destroy", 16, || {
        let domain = Domain::create(MAX_PAGES, POOL).expect("a domain");
        domain.populate(MEMORY, ORDER_2M).expect("its memory");
        domain.destroy().expect("its end");
    });
    events.end();
}

fn grant_rows(other: Domain, hole: Frame) {
    const REFERENCE: u32 = 8;
    let table = self::hole();
    other.map_grant_table(table).expect("its grant table");
    grant::Table(table).set(REFERENCE, grant::PERMIT_ACCESS, abi::DOM0, MEMORY + 1);
    let mapping = grant::map(REFERENCE, other.0, grant::MAP_HOST, hole);
    assert_eq!(mapping.status, 0);
    assert_eq!(grant::unmap(mapping.handle, hole), 0);
    row("grant_map_unmap_domu", 1600, || {
        let mapping = grant::map(REFERENCE, other.0, grant::MAP_HOST, hole);
        grant::unmap(mapping.handle, hole);
    });
    let target = Frame::take();
    let source = grant::CopySide { what: REFERENCE.into(), domain: other.0, offset: 0, pad: 0 };
    assert_eq!(grant::copy(source, grant::local(target, 0), 4096, grant::COPY_SOURCE_GREF), 0);
    row("grant_copy_4096_domu", 1600, || {
        grant::copy(source, grant::local(target, 0), 4096, grant::COPY_SOURCE_GREF);
    });
    grant::Table(table).clear(REFERENCE);
    assert_eq!(domain::unmap(table), 0);
}

fn memory_rows(other: Domain) {
    const SPARE: u64 = MEMORY + 1024;
    // Without a neighbour a single page would be the first and the last of its table each time.
    const NEIGHBOUR: u64 = SPARE + 511;
    assert_eq!(other.reservation(abi::MEM_POPULATE_PHYSMAP, NEIGHBOUR, 0), 1);
    for (name, gfn, order, rounds) in
        [("mem_populate_decrease_4k_domu", SPARE, 0, 800), ("mem_populate_decrease_2m_domu", SPARE + 512, ORDER_2M, 8)]
    {
        row(name, rounds, || {
            assert_eq!(other.reservation(abi::MEM_POPULATE_PHYSMAP, gfn, order), 1);
            assert_eq!(other.reservation(abi::MEM_DECREASE_RESERVATION, gfn, order), 1);
        });
    }
}

/// Measures a domain's writes to its own pages while these are logged, and after that. `quiet` writes nothing.
fn log_rows(quiet: &Answerer, hole: Frame, events: &Events) {
    const PAGES: u32 = 256;
    const MOST_FAULTS: u32 = 2;
    let round = |other: &Answerer| {
        let start = clock::now();
        other.round(events);
        clock::now() - start
    };
    let many = Answerer::that_writes(PAGES, hole, events).expect("a domain");
    if many.domain.log().is_err() {
        // Xen has no log on Arm.
        return many.end();
    }
    let one = Answerer::that_writes(1, hole, events).expect("a domain");
    let beside = || round(quiet);
    timed("log_dirty_write_4k", 16, PAGES, beside, || {
        let before = many.domain.clean_log(0, 0).expect("its log");
        assert!(before.faults <= MOST_FAULTS * before.written);
        round(&many)
    });
    many.domain.end_log().expect("the log's end");
    timed("log_dirty_write_2m", 16, 1, beside, || {
        one.domain.log().expect("a log");
        let ticks = round(&one);
        one.domain.end_log().expect("the log's end");
        ticks
    });
    timed("log_dirty_off_write_4k", 16, PAGES, beside, || round(&many));
    one.end();
    many.end();
}

/// Measures the hot operations with 1, 10 and 100 other domains alive, and how many there may be.
pub fn scale() {
    const MOST: usize = 600;
    const LEVELS: [usize; 3] = [1, 10, 100];
    let events = Events::new();
    let hole = hole();
    let mut domains: [Option<Answerer>; MOST] = [const { None }; MOST];
    let before = domain::free_pages().expect("physinfo");
    let mut alive = 0;
    let failed = loop {
        if alive == MOST {
            break 0;
        }
        match Answerer::new(hole, &events) {
            Ok(domain) => domains[alive] = Some(domain),
            Err(error) => break error,
        }
        alive += 1;
        if LEVELS.contains(&alive) {
            let free = domain::free_pages().expect("physinfo");
            let names = &NAMES[LEVELS.iter().position(|&level| level == alive).expect("a level")];
            measure(names, &events, hole, domains[alive - 1].as_ref().expect("the last one"));
            println!("scale {alive} domains: {} KiB each", (before - free) * 4 / alive as u64);
        }
    };
    println!("scale no more domains: {failed}");
    print("domains_in_memory", alive as i64 * 10);
    for domain in domains.into_iter().flatten() {
        domain.end();
    }
    events.end();
}

/// Names of rows by level.
struct Names {
    to_self: &'static str,
    yielding: &'static str,
    timer: &'static str,
    ping_pong: &'static str,
    grant: &'static str,
    foreign: &'static str,
    create: &'static str,
}

macro_rules! names {
    ($alive:literal) => {
        Names {
            to_self: concat!("evtchn_send_self_taken_with_", $alive),
            yielding: concat!("hypercall_sched_yield_with_", $alive),
            timer: concat!("vtimer_latency_wfi_1ms_with_", $alive),
            ping_pong: concat!("evtchn_pingpong_domains_with_", $alive),
            grant: concat!("grant_map_unmap_with_", $alive),
            foreign: concat!("foreign_map_unmap_with_", $alive),
            create: concat!("domain_create_destroy_with_", $alive),
        }
    };
}

const NAMES: [Names; 3] = [names!("1"), names!("10"), names!("100")];

fn measure(names: &Names, events: &Events, hole: Frame, other: &Answerer) {
    row(names.to_self, 8000, || {
        until_taken(|| {
            event::send(events.port);
        });
        events.take();
    });
    row(names.yielding, 4000, one::yield_alone);
    lateness(names.timer, 1600, 1000, cp15::wfi);
    row(names.ping_pong, 1000, || other.round(events));
    one::map_own_grant(names.grant, hole);
    row(names.foreign, 1600, || {
        other.domain.map(MEMORY, hole);
        domain::unmap(hole);
    });
    row(names.create, 16, || {
        let domain = Domain::create(MAX_PAGES, POOL).expect("a domain");
        domain.populate(MEMORY, ORDER_2M).expect("its memory");
        domain.destroy().expect("its end");
    });
}

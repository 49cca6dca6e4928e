//! A guest that knows nothing of being saved: dom0 saves and restores it while it works (tests/dom0/transparent.sh).
//!
//! Two vCPUs count their timers' interrupts and send each other events. A line typed on the console is answered when its event
//! comes: `state` says what must hold, `kept` if an event arrives that was sent at the start and is masked since, `hold` has the
//! other vCPU stay in the handler of an interrupt, or leave it. Things that no save can keep come and go by `map`, a mapping of
//! its own grant, and `watchdog`; `fifo`, another ABI of events, comes to stay.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use guests::abi::DOMID_SELF;
use guests::event::{self, SharedInfo, VcpuInfo};
use guests::gic::{self, INTID_MASK, VIRTUAL_TIMER};
use guests::hypercall::{SCHED_OP, call_with};
use guests::interrupt::TIMER_ENABLED;
use guests::memory::{Frame, PAGE_SIZE, Slot, map_fixed};
use guests::{clock, console, cp15, grant, interrupt, platform, println, smp};

const VIRQ_DEBUG: u32 = 1;
/// xen/include/public/io/console.h: in[1024], and its indices.
const IN_SIZE: u32 = 1024;
const IN_CONS: u32 = 3072;
const IN_PROD: u32 = 3076;
/// Time from a timer's interrupt to the next.
const TICK_US: u64 = 50_000;
/// A grant to dom0 that nobody maps, and one to the domain itself.
const TO_DOM0: u32 = 9;
const TO_SELF: u32 = 10;
const GTF_PERMIT_ACCESS: u32 = 1;
const GNTMAP_HOST: u32 = 2;

/// State of both vCPUs.
struct Shared {
    /// Addresses of shared_info and of each vCPU's vcpu_info.
    info: AtomicU32,
    vcpu_info: [AtomicU32; 2],
    ticks: [AtomicU32; 2],
    last: [AtomicU64; 2],
    /// The longest time between two ticks, in ticks of the counter.
    gap: AtomicU64,
    /// Ports: to the other vCPU, masked, of a VIRQ, both ends of a loop, console.
    ports: [AtomicU32; 6],
    /// Events of each of these.
    events: [AtomicU32; 6],
    has_input: AtomicBool,
    /// vCPU 1 is to stay in its timer's handler, and is there.
    hold: AtomicBool,
    is_held: AtomicBool,
}

const IPI: usize = 0;
const KEPT: usize = 1;
const VIRQ: usize = 2;
const LOOP: usize = 3;
const CONSOLE: usize = 5;

static SHARED: Shared = Shared {
    info: AtomicU32::new(0),
    vcpu_info: [const { AtomicU32::new(0) }; 2],
    ticks: [const { AtomicU32::new(0) }; 2],
    last: [const { AtomicU64::new(0) }; 2],
    gap: AtomicU64::new(0),
    ports: [const { AtomicU32::new(0) }; 6],
    events: [const { AtomicU32::new(0) }; 6],
    has_input: AtomicBool::new(false),
    hold: AtomicBool::new(false),
    is_held: AtomicBool::new(false),
};

fn port(which: usize) -> u32 {
    SHARED.ports[which].load(SeqCst)
}

fn events(which: usize) -> u32 {
    SHARED.events[which].load(SeqCst)
}

fn shared_info() -> SharedInfo {
    SharedInfo(Frame::at(SHARED.info.load(SeqCst)))
}

fn arm() {
    cp15::write_cntv_cval(clock::now() + clock::ticks(TICK_US));
    cp15::write_cntv_ctl(TIMER_ENABLED);
}

fn taken(acknowledged: u32) {
    let cpu = cp15::cpu_index();
    if acknowledged & INTID_MASK == VIRTUAL_TIMER {
        let now = clock::now();
        let last = SHARED.last[cpu].swap(now, SeqCst);
        if last != 0 {
            SHARED.gap.fetch_max(now.wrapping_sub(last), SeqCst);
        }
        SHARED.ticks[cpu].fetch_add(1, SeqCst);
        while cpu == 1 && SHARED.hold.load(SeqCst) {
            SHARED.is_held.store(true, SeqCst);
        }
        arm();
    } else if acknowledged & INTID_MASK == platform::get().event_interrupt {
        upcall(cpu);
    }
}

fn upcall(cpu: usize) {
    let info = VcpuInfo(SHARED.vcpu_info[cpu].load(SeqCst));
    let shared = shared_info();
    while info.take_upcall() {
        info.take_selector();
        for (n, number) in SHARED.ports.iter().enumerate() {
            let port = number.load(SeqCst);
            // The vCPU that an event goes to takes it.
            let mine = if n == IPI { 1 } else { 0 };
            if port != 0 && mine == cpu && shared.pending(port) && !shared.masked(port) {
                shared.clear_pending(port);
                SHARED.events[n].fetch_add(1, SeqCst);
                if n == CONSOLE {
                    SHARED.has_input.store(true, SeqCst);
                }
            }
        }
    }
}

/// Takes the other vCPU's interrupts, for ever.
fn work() {
    interrupt::set_hook(taken);
    gic::enable(VIRTUAL_TIMER);
    gic::enable(platform::get().event_interrupt);
    // Raises an event, which would be dropped for a vCPU that is off.
    let info = SHARED.vcpu_info[1].load(SeqCst);
    assert_eq!(event::register_vcpu_info(1, u64::from(info / PAGE_SIZE), info % PAGE_SIZE), 0);
    arm();
    cp15::enable_interrupts();
    loop {
        cp15::wfi();
    }
}

/// Opens the ports. vCPU 0 keeps its vcpu_info in shared_info, the other one registers another.
fn open() {
    let shared = SharedInfo::map().expect("shared_info");
    shared.clear_all();
    SHARED.info.store(shared.0.address(), SeqCst);
    let page = Frame::take();
    SHARED.vcpu_info[0].store(shared.0.address(), SeqCst);
    SHARED.vcpu_info[1].store(page.address() + 64, SeqCst);
    let console = console::hvm_parameter(console::PARAM_CONSOLE_EVTCHN).expect("the console's port");
    let left = event::alloc_loopback().expect("a port");
    let right = event::bind_interdomain(DOMID_SELF, left).expect("its other end");
    // One that is closed is between them.
    let closed = event::alloc_unbound(DOMID_SELF, 0).expect("a port");
    let ports = [
        event::bind_ipi(1).expect("a port of the other vCPU"),
        event::bind_ipi(0).expect("a port"),
        event::bind_virq(VIRQ_DEBUG, 1).expect("a port of a VIRQ"),
        left,
        right,
        console as u32,
    ];
    event::close(closed);
    for (to, port) in SHARED.ports.iter().zip(ports) {
        to.store(port, SeqCst);
    }
    shared.set_mask(port(KEPT));
    event::send(port(KEPT));
}

/// Returns whether an event that is sent on one port arrives at another.
fn arrives(sent: usize, at: usize) -> bool {
    let before = events(at);
    event::send(port(sent)) == 0 && clock::poll(|| events(at) > before)
}

fn says(what: &str, holds: bool) {
    if !holds {
        println!("FAIL {what}");
    }
}

fn state(table: grant::Table, granted: Frame) {
    let before = [&SHARED.ticks[0], &SHARED.ticks[1]].map(|ticks| ticks.load(SeqCst));
    let ticks_on = || SHARED.ticks.iter().zip(before).all(|(ticks, before)| ticks.load(SeqCst) > before + 1);
    says("both timers go on", clock::poll(ticks_on));
    says("the other vCPU takes events", arrives(IPI, IPI));
    says("a loop is one", arrives(LOOP, LOOP + 1) && arrives(LOOP + 1, LOOP));
    let virq = event::status(DOMID_SELF, port(VIRQ));
    let is_virq =
        |status: event::Status| (status.status, status.detail, status.vcpu) == (event::STATUS_VIRQ, VIRQ_DEBUG, 1);
    says("a port is of its VIRQ", virq.is_ok_and(is_virq));
    says("the VIRQ has that port", event::bind_virq(VIRQ_DEBUG, 1).is_err());
    let (entry, own) = (table.0.read(TO_DOM0 * 8 + 4), table.0.read(TO_SELF * 8));
    says("a grant is as it was", table.flags(TO_DOM0) == GTF_PERMIT_ACCESS && u64::from(entry) == granted.gfn());
    let offered_to = event::alloc_loopback().and_then(|port| {
        let told = event::status(DOMID_SELF, port).map(|status| status.detail & 0xffff);
        event::close(port);
        told
    });
    says("a grant to itself names itself", offered_to.is_ok_and(|me| own >> 16 == me));
    says("an event that is masked waits", events(KEPT) == 0 && shared_info().pending(port(KEPT)));
    let gap = SHARED.gap.load(SeqCst) * 1000 / u64::from(cp15::cntfrq());
    println!("state: ticks {} and {}, longest gap {gap} ms", before[0], before[1]);
}

/// Has the domain map its own grant, for as long as it is asked to.
fn map(mapped: &mut Option<(u32, Frame)>) {
    match mapped.take() {
        Some((handle, at)) => _ = grant::unmap(handle, at),
        None => {
            let at = Frame::take();
            let map = grant::map(TO_SELF, grant::myself(), GNTMAP_HOST, at);
            *mapped = (map.status == 0).then_some((map.handle, at));
        }
    }
    println!("mapped: {}", mapped.is_some());
}

/// Has the other vCPU stay in the handler of its timer, with an event that waits until it leaves it; or lets it leave.
fn hold() {
    if !SHARED.hold.swap(true, SeqCst) {
        SHARED.is_held.store(false, SeqCst);
        let is_held = clock::poll(|| SHARED.is_held.load(SeqCst));
        println!("held: {}", is_held && !arrives(IPI, IPI));
        return;
    }
    let (ticks, taken) = (SHARED.ticks[1].load(SeqCst), events(IPI));
    let was_held = !clock::poll(|| SHARED.ticks[1].load(SeqCst) > ticks || events(IPI) > taken);
    SHARED.hold.store(false, SeqCst);
    let goes_on = clock::poll(|| SHARED.ticks[1].load(SeqCst) > ticks + 1 && events(IPI) == taken + 1);
    println!("released: {}", was_held && goes_on);
}

/// Sets a watchdog for a long time, or takes it back.
fn watchdog() {
    const SCHEDOP_WATCHDOG: u32 = 6;
    const SECONDS: u32 = 100_000;
    static SET: AtomicU32 = AtomicU32::new(0);
    let id = SET.load(SeqCst);
    let answer = call_with(SCHED_OP, SCHEDOP_WATCHDOG, &mut [id, if id == 0 { SECONDS } else { 0 }]);
    SET.store(if id == 0 { answer as u32 } else { 0 }, SeqCst);
    println!("watchdog: {}", SET.load(SeqCst) != 0);
}

fn answer(line: &[u8], table: grant::Table, granted: Frame, mapped: &mut Option<(u32, Frame)>) {
    console::forget_daemon();
    match line {
        b"state" => state(table, granted),
        b"kept" => {
            event::unmask(port(KEPT));
            println!("kept: {}", clock::poll(|| events(KEPT) == 1));
            shared_info().set_mask(port(KEPT));
        }
        b"hold" => hold(),
        b"map" => map(mapped),
        b"watchdog" => watchdog(),
        b"fifo" => println!("fifo: {}", event::init_control(Frame::take().gfn(), 0, 0).is_ok()),
        _ => println!("unknown"),
    }
}

/// Takes what was typed, if its event has come.
fn read(ring: Frame, line: &mut [u8; 64], length: &mut usize) -> bool {
    if !SHARED.has_input.swap(false, SeqCst) {
        return false;
    }
    let (mut at, end) = (ring.read(IN_CONS), ring.read(IN_PROD));
    let mut whole = false;
    while at != end && !whole {
        let byte = (ring.read((at % IN_SIZE) & !3) >> (at % 4 * 8)) as u8;
        at = at.wrapping_add(1);
        match byte {
            b'\n' | b'\r' => whole = *length > 0,
            _ if *length < line.len() => {
                line[*length] = byte;
                *length += 1;
            }
            _ => {}
        }
    }
    ring.write(IN_CONS, at);
    if at != end {
        SHARED.has_input.store(true, SeqCst);
    }
    event::send(port(CONSOLE));
    whole
}

#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    open();
    let table = grant::Table::map().expect("the grant table");
    let granted = Frame::take();
    table.set(TO_DOM0, GTF_PERMIT_ACCESS, 0, granted.gfn());
    table.set(TO_SELF, GTF_PERMIT_ACCESS, grant::myself(), granted.gfn());
    // Its start takes the hook away.
    assert_eq!(smp::start(1, work), 0);
    assert!(clock::poll(|| SHARED.ticks[1].load(SeqCst) > 0));
    gic::enable(VIRTUAL_TIMER);
    gic::enable(platform::get().event_interrupt);
    arm();
    let page = console::hvm_parameter(console::PARAM_CONSOLE_PFN).expect("the console's page");
    let ring = Frame::at(map_fixed(Slot::Console, (page as u32) << 12));
    println!("guest: unaware");
    let (mut line, mut length, mut mapped) = ([0; 64], 0, None);
    loop {
        cp15::enable_interrupts();
        cp15::wfi();
        if read(ring, &mut line, &mut length) {
            answer(&line[..length], table, granted, &mut mapped);
            length = 0;
        }
    }
}

//! Steps: each is one thing by chance.

use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, Poll};
use guests::code::{self, Code, load, store};
use guests::domain::Domain;
use guests::exception::MODE_SUPERVISOR;
use guests::grant;
use guests::hypercall::{
    CONSOLE_IO, DOMCTL, EVENT_CHANNEL_OP, GRANT_TABLE_OP, HVM_OP, MEMORY_OP, MULTICALL, PHYSDEV_OP, PLATFORM_OP,
    SCHED_OP, SYSCTL, VCPU_OP, VM_ASSIST, XEN_VERSION, call, call_with,
};
use guests::memory::{self, Frame, PAGE_SIZE};
use guests::random::{Random, mix};
use guests::{clock, cp15, gic, interrupt, platform, println, psci, smp};

use crate::argument::{self, Room, hole, victim};

const SCHED_OP_COMPAT: u32 = 6;
const HYPFS_OP: u32 = 42;

/// The vCPU that comes and goes; 0 for none.
pub static VISITOR: AtomicU32 = AtomicU32::new(0);

/// The domain that was made last, and how many there are at most.
static DOMAINS: AtomicU32 = AtomicU32::new(0);
const MOST_DOMAINS: u32 = 6;

/// Hypercalls, and how many of them were no error.
pub static CALLS: AtomicU32 = AtomicU32::new(0);
pub static DONE: AtomicU32 = AtomicU32::new(0);

/// One vCPU's steps.
pub struct Lane {
    seed: u32,
    cpu: u32,
    room: Room,
    random: Random,
    is_dom0: bool,
}

type Step = fn(&mut Lane);

/// Steps, and how often each is taken.
const STEPS: [(u32, Step); 12] = [
    (40, Lane::call),
    (4, Lane::calls),
    (10, Lane::entries),
    (10, Lane::words),
    (12, Lane::controller),
    (6, Lane::interrupts),
    (12, Lane::register),
    (6, Lane::instruction),
    (6, Lane::firmware),
    (4, Lane::timers),
    (2, Lane::wait),
    (3, Lane::others),
];

impl Lane {
    pub fn new(seed: u32, cpu: u32) -> Self {
        let is_dom0 = grant::myself() == abi::DOM0;
        Self { seed, cpu, room: Room::of(cpu), random: Random::of_state(1), is_dom0 }
    }

    pub fn step(&mut self, step: u32) {
        self.random = Random::of_state(mix(self.seed ^ mix(self.cpu ^ mix(step))));
        let all = STEPS.iter().map(|(often, _)| often).sum();
        let mut which = self.random.below(all);
        for (often, what) in STEPS {
            if which < often {
                return what(self);
            }
            which -= often;
        }
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.random.below(limit)
    }

    fn value(&mut self) -> u32 {
        self.room.value(&mut self.random)
    }

    /// A hypercall.
    fn call(&mut self) {
        let number = self.number();
        let arguments = self.arguments(number);
        if argument::traces() {
            println!("{number} {arguments:x?}");
        }
        CALLS.fetch_add(1, Ordering::Relaxed);
        if call(number, arguments) >= 0 {
            DONE.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn number(&mut self) -> u32 {
        const NUMBERS: [u32; 20] = [
            MEMORY_OP,
            MEMORY_OP,
            MEMORY_OP,
            GRANT_TABLE_OP,
            GRANT_TABLE_OP,
            GRANT_TABLE_OP,
            EVENT_CHANNEL_OP,
            EVENT_CHANNEL_OP,
            EVENT_CHANNEL_OP,
            VCPU_OP,
            SCHED_OP,
            SCHED_OP_COMPAT,
            HVM_OP,
            XEN_VERSION,
            CONSOLE_IO,
            PHYSDEV_OP,
            VM_ASSIST,
            SYSCTL,
            DOMCTL,
            HYPFS_OP,
        ];
        match self.below(24) {
            0 => self.below(64),
            1 => PLATFORM_OP,
            _ => self.random.of(&NUMBERS),
        }
    }

    /// Arguments of a hypercall, without what ends or stops this guest.
    fn arguments(&mut self, number: u32) -> [u32; 5] {
        self.room.fill(&mut self.random);
        let pointer = self.room.pointer(&mut self.random);
        // Answers to a longer list would go beyond this vCPU's room; one of that many is none.
        let (operation, count) = (self.below(34), self.random.of(&[0, 1, 1, 2, 3, 16, 64, u32::MAX]));
        let rest = [self.value(), self.value()];
        let argument = self.room.argument;
        match number {
            // Block, shutdown, poll, remote_shutdown, watchdog.
            SCHED_OP | SCHED_OP_COMPAT if matches!(operation, 1..=4 | 6) => [0; 5],
            SCHED_OP | SCHED_OP_COMPAT => [operation, pointer, 0, 0, 0],
            // A list by chance has arguments beyond 32 bits, which are the caller's end: `calls` makes lists.
            MULTICALL => [memory::UNMAPPED, count, 0, 0, 0],
            // In dom0's place only reads: a line of nonsense is no use to anybody.
            CONSOLE_IO if self.is_dom0 => [1, self.below(256), pointer, rest[0], rest[1]],
            CONSOLE_IO => [operation % 4, count, pointer, rest[0], rest[1]],
            MEMORY_OP => {
                self.shorten(operation);
                [operation | self.random.of(&[0, 0, 0, 1 << 6]), pointer, count, rest[0], rest[1]]
            }
            VCPU_OP => [operation, self.random.of(&[0, 1, 2, 3, 4, 127, u32::MAX]), pointer, rest[0], rest[1]],
            DOMCTL => {
                self.control();
                [argument.address(), rest[0], 0, 0, 0]
            }
            SYSCTL => {
                self.control();
                // Debug keys, and CPUs that are switched off.
                if matches!(argument.read(0), 7 | 11) {
                    argument.write(0, 3);
                }
                [argument.address(), rest[0], 0, 0, 0]
            }
            PLATFORM_OP => [pointer, rest[0], rest[1], 0, 0],
            _ => [operation, pointer, count, rest[0], rest[1]],
        }
    }

    /// Makes an argument of memory_op no longer than the victims' pages.
    fn shorten(&mut self, operation: u32) {
        let argument = self.room.argument;
        match operation {
            0 | 1 | 6 => {
                // Extents of more than 2 MiB are refused, or else are more than this guest can spare.
                argument.write(0, self.random.of(&[self.room.list.address(), self.room.list.address(), 1]));
                argument.write(8, self.random.of(&[0, 1, 2, 16, 64]));
                if self.random.below(8) > 0 {
                    put(argument, &[4, 12, 20], 0);
                }
                let order = self.random.of(&[0, 0, 0, 1, 3, 9, 20, 31, 32, 63, u32::MAX]);
                argument.write(16, order);
                argument.write(24, self.domain());
            }
            // A source and a destination that are frames, for 64 at most.
            7 => {
                let head = self.domain() | self.random.below(64) << 16;
                argument.write(0, head);
                argument.write(4, self.random.below(6));
                if self.random.below(8) > 0 {
                    put(argument, &[12, 20], 0);
                }
            }
            23 => {
                argument.write(0, self.domain() | self.random.below(6) << 16);
                argument.write(4, self.random.below(64) | self.random.below(4) << 16);
                put(argument, &[8, 16, 24], self.room.list.address());
                if self.random.below(8) > 0 {
                    put(argument, &[12, 20, 28], 0);
                }
            }
            15 => {
                argument.write(0, self.domain());
                argument.write(8, victim(&mut self.random).gfn() as u32);
                argument.write(12, 0);
            }
            28 => {
                argument.write(0, self.domain() | self.random.below(3) << 16);
                argument.write(8, self.random.below(64));
                argument.write(24, self.room.list.address());
                argument.write(28, 0);
            }
            _ => {}
        }
    }

    /// A domain's number: mostly this one's.
    fn domain(&mut self) -> u32 {
        let myself = abi::DOMID_SELF.into();
        let other = if self.is_dom0 { self.other() } else { 1 };
        self.random.of(&[myself, myself, myself, grant::myself().into(), other, other, 0, 0x7ff1, 0x7ff4])
    }

    /// The number of a domain that was made here, if there is one.
    fn other(&mut self) -> u32 {
        let all = DOMAINS.load(Ordering::SeqCst);
        all.wrapping_sub(self.below(MOST_DOMAINS)) & 0xffff
    }

    /// Makes an argument of domctl or sysctl: mostly one of that version, about a domain that is not dom0.
    fn control(&mut self) {
        let argument = self.room.argument;
        argument.write(0, self.random.below(90));
        if self.random.below(32) > 0 {
            argument.write(4, 0x15);
        }
        if self.is_dom0 {
            let domain = match self.below(8) {
                0 => self.random.of(&[0x7ff1, 0x7ff4, 0xffff]),
                _ => self.other(),
            };
            argument.write(8, domain);
            // Numbers of pages, bytes and domains that answers are written for.
            for at in [16, 20, 24, 28, 40, 48] {
                if self.random.below(3) == 0 {
                    argument.write(at, self.random.below(64));
                }
            }
            // A cpupool_op names a domain too.
            if argument.read(0) == 18 {
                argument.write(16, domain);
            }
        }
    }

    /// Calls within a call.
    fn calls(&mut self) {
        const ENTRY: u32 = 64;
        let count = self.below(8) + 1;
        for entry in 0..count {
            let number = self.number();
            let arguments = self.arguments(number);
            let page = self.room.calls;
            for word in 0..ENTRY / 4 {
                page.write(entry * ENTRY + word * 4, 0);
            }
            page.write(entry * ENTRY, number);
            for (word, argument) in (0..).zip(arguments) {
                page.write(entry * ENTRY + 16 + word * 8, argument);
            }
        }
        if argument::traces() {
            println!("multicall of {count}");
        }
        call(MULTICALL, [self.room.calls.address(), count, 0, 0, 0]);
    }

    /// Writes an entry of the grant table, and uses one: its mappings are made by `call`.
    fn entries(&mut self) {
        let reference = self.below(16) + 8;
        let gfn = match self.below(8) {
            0 => self.value(),
            _ => victim(&mut self.random).gfn() as u32,
        };
        let flags = self.random.of(&[0, 1, 1, 1, 1, 5, 2, 3, 9, 25, 0xffff]);
        let domain = self.random.of(&[grant::myself(), grant::myself(), grant::myself(), 0, 1]);
        argument::table().set(reference, flags, domain, gfn.into());
        let (place, other) = (victim(&mut self.random), victim(&mut self.random));
        match self.below(3) {
            0 => {
                let flags = self.random.of(&[2, 2, 6, 0, 18, 10, 3]);
                let mapping = grant::map(reference, grant::myself(), flags, place);
                if self.below(4) > 0 {
                    grant::unmap(mapping.handle, place);
                }
            }
            1 => {
                let side = grant::granted(grant::myself(), reference, self.below(PAGE_SIZE) as u16);
                grant::copy(side, grant::local(other, self.below(64) as u16), self.below(PAGE_SIZE) as u16, 1);
            }
            _ => {
                let flush = grant::CacheFlush {
                    address: place.address().into(),
                    offset: self.below(PAGE_SIZE) as u16,
                    length: self.below(PAGE_SIZE) as u16,
                    operation: self.below(8),
                };
                grant::operate(grant::CACHE_FLUSH, &mut [flush]);
            }
        }
    }

    /// Reads and writes words of victims, which may be event words or pages of the hypervisor.
    fn words(&mut self) {
        for _ in 0..8 {
            let address = victim(&mut self.random).address() + self.below(PAGE_SIZE / 4) * 4;
            let word = match self.below(4) {
                0 => 1 << 31 | self.below(1 << 17),
                1 => 1 << 29 | self.below(64),
                2 => self.value(),
                _ => self.random.word(),
            };
            store(address, word).ok();
            load(address).ok();
        }
    }

    /// Accesses of a device, or of nothing, in all forms.
    fn controller(&mut self) {
        const FORMS: [u32; 20] = [
            0xe590_0000, // ldr r0, [r0]
            0xe580_1000, // str r1, [r0]
            0xe590_0000,
            0xe580_1000,
            0xe580_1000,
            0xe5d0_0000, // ldrb
            0xe5c0_1000, // strb
            0xe1d0_00b0, // ldrh
            0xe1c0_10b0, // strh
            0xe1d0_00d0, // ldrsb
            0xe1d0_00f0, // ldrsh
            0xe8b0_000e, // ldmia r0!, {r1-r3}
            0xe8a0_000e, // stmia r0!, {r1-r3}
            0xe1c0_20d0, // ldrd r2, [r0]
            0xe1c0_20f0, // strd r2, [r0]
            0xe190_0f9f, // ldrex r0, [r0]
            0xe180_2f91, // strex r2, r1, [r0]
            0xe100_1092, // swp r1, r2, [r0]
            0xe490_1004, // ldr r1, [r0], #4
            0xf5d0_f000, // pld [r0]
        ];
        let machine = platform::get();
        for _ in 0..4 {
            let address = match self.below(8) {
                0 => hole(&mut self.random),
                1 => machine.cpu_interface + self.below(2 * PAGE_SIZE),
                2 => machine.cpu_interface + self.random.of(&[0, 4, 8, 12, 16, 24, 0xd0, 0xfc, 0x1000]),
                3 => machine.distributor + gic::SGIR + self.below(48),
                _ => machine.distributor + self.below(PAGE_SIZE),
            };
            let address = if self.below(4) > 0 { address & !3 } else { address };
            // Switched off under a vCPU that waits, the distributor has it wait for ever.
            if address & !3 == machine.distributor + gic::CTLR && machine.cpus > 1 {
                continue;
            }
            let (form, value) = (self.random.of(&FORMS), self.value());
            if self.below(8) == 0 {
                Code::page().run_in_user_mode(&[form], address, value);
            } else {
                Code::page().run(&[form], address, value).ok();
            }
        }
    }

    /// Takes and ends interrupts, in any order.
    fn interrupts(&mut self) {
        let mut taken = [gic::SPURIOUS; 8];
        let count = self.below(8) as usize;
        for slot in &mut taken[..count] {
            gic::send_sgi(gic::Target::List(self.random.word() & 0xff), self.random.word() & 15);
            *slot = gic::acknowledge();
        }
        for _ in 0..count {
            let value = taken[self.below(8) as usize];
            match self.below(4) {
                0 => gic::deactivate(value),
                1 => gic::set_end_mode(gic::EndMode::Drop),
                _ => gic::end(value),
            }
        }
    }

    /// A register of a coprocessor.
    fn register(&mut self) {
        for _ in 0..4 {
            let read = self.below(2) == 0;
            let cp = self.random.of(&[15, 15, 15, 15, 15, 14, 14, 0, 7, 13]);
            let (op1, op2) = (self.random.of(&[0, 0, 0, 0, 1, 2, 4, 6, 7]), self.below(8));
            let (crn, crm) = (self.below(16), self.random.of(&[0, 0, 0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 15]));
            let is_pair = self.below(6) == 0;
            let word = match is_pair {
                true => code::pair(read, cp, op1, crm),
                false => code::register(read, cp, op1, crn, crm, op2),
            };
            // This guest runs by these: its translation, its vectors, its vCPU's number. WFI of old waits.
            let mine = match is_pair {
                true => crm == 2,
                false => matches!(
                    (crn, crm, op2),
                    (1, 0, 0) | (7, 0, 4) | (12, 0, 0) | (2 | 3, ..) | (10, 2 | 3, _) | (13, _, 0 | 4)
                ),
            };
            if cp == 15 && op1 == 0 && mine && !read {
                continue;
            }
            let by_address = crn == 7 && op2 != 2;
            let a = if by_address && !is_pair { self.address() } else { self.random.word() };
            let b = self.random.word();
            if self.below(6) == 0 {
                Code::page().run_in_user_mode(&[word], a, b);
            } else {
                Code::page().run(&[word], a, b).ok();
            }
        }
        // Without these no event of the counter or line of the caches is this guest's any more.
        cp15::write_cntkctl(3);
    }

    /// An address that a maintenance operation may have.
    fn address(&mut self) -> u32 {
        if self.below(2) == 0 { hole(&mut self.random) } else { victim(&mut self.random).address() }
    }

    /// An instruction, mostly in user mode.
    fn instruction(&mut self) {
        let next = self.random.word();
        let word = match self.below(7) {
            // Miscellaneous, multiplies, media, coprocessors, vectors, and calls that are none.
            0 => 0xe100_0000 | next & 0x0060_0eff | 1 << 12,
            1 => 0xe000_0090 | next & 0x00f0_0e0f | 1 << 12,
            2 => 0xe600_0010 | next & 0x01f0_0eef | 1 << 12,
            3 => 0xec00_0000 | next & 0x02f0_0fff | 1 << 12,
            4 => 0xee00_0a00 | next & 0x00ff_f1ef,
            5 => 0xf200_0000 | next & 0x01ff_ffff,
            _ => {
                let immediate = next & 0xffff;
                let word = if next >> 16 & 1 == 0 { code::hvc(immediate) } else { code::smc(immediate) };
                // Of PSCI, should it be that: its version.
                if immediate != 0xea1 {
                    Code::page().run(&[word], psci::VERSION, next).ok();
                }
                word
            }
        };
        // A branch to r0 to r14.
        if word & 0x0fff_ffd0 != 0x012f_ff10 {
            Code::page().run_in_user_mode(&[word], memory::UNMAPPED, memory::UNMAPPED);
        }
        cp15::isb();
        debug_assert_eq!(cp15::cpsr() & 0x1f, MODE_SUPERVISOR);
    }

    /// A call of firmware, by either conduit.
    fn firmware(&mut self) {
        let function = match self.below(8) {
            0 => self.value(),
            1 => 0x8000_0000 | self.below(0x40) << 24 | self.below(0x8000),
            2 => 0xc400_0000 | self.below(32),
            3 => self.random.of(&[psci::SMCCC_VERSION, psci::SMCCC_ARCH_FEATURES, 0x8600_ff01, 0x8600_ff03]),
            _ => 0x8400_0000 | self.below(32),
        };
        let mut arguments = [self.value(), self.value(), self.value()];
        match function & 0x00ff_ffff {
            // Its own end, and waits, by numbers old and new.
            0 | 1 | 2 | 8 | 9 | 18 if function != psci::VERSION => return,
            // vCPUs that are not there, or on already.
            3 => arguments[0] = self.random.of(&[0, 8, 9, 0x100, 0xff_ffff, 0x8000_0000, u32::MAX]),
            _ => {}
        }
        let [a, b, c] = arguments;
        match self.below(2) {
            0 => psci::call_by_hvc(function, a, b, c),
            _ => psci::call_by_smc(function, a, b, c),
        };
    }

    fn timers(&mut self) {
        let value = match self.below(3) {
            0 => clock::now().wrapping_add(self.random.word().into()),
            1 => 1 << self.below(64),
            _ => u64::from(self.random.word()) << 32 | u64::from(self.random.word()),
        };
        match self.below(6) {
            0 => cp15::write_cntv_cval(value),
            1 => cp15::write_cntp_cval(value),
            2 => cp15::write_cntv_tval(value as u32),
            3 => cp15::write_cntp_tval(value as u32),
            4 => cp15::write_cntv_ctl(value as u32),
            _ => cp15::write_cntp_ctl(value as u32),
        }
    }

    /// Makes this vCPU's interrupts and timers as they were at first.
    pub fn calm(&mut self) {
        const PRIORITIES: u32 = 0xd0;
        cp15::disable_interrupts();
        cp15::write_cntv_ctl(0);
        cp15::write_cntp_ctl(0);
        guests::mmio::write32(platform::get().cpu_interface + PRIORITIES, 0);
        for word in 1..32 {
            guests::mmio::write32(gic::distributor(gic::ICENABLER + word * 4), u32::MAX);
        }
        gic::quiet();
        interrupt::reset();
    }

    /// Waits in one of the ways there are; a timer ends it.
    fn wait(&mut self) {
        const SOON_US: u64 = 50;
        self.calm();
        gic::enable(gic::VIRTUAL_TIMER);
        cp15::write_cntv_cval(clock::now() + clock::ticks(SOON_US));
        cp15::write_cntv_ctl(interrupt::TIMER_ENABLED);
        match self.below(5) {
            0 => cp15::wfi(),
            1 => cp15::wfe(),
            2 => drop(psci::call(psci::CPU_SUSPEND, 0, 0, 0)),
            3 => drop(call(SCHED_OP, [abi::SCHEDOP_BLOCK, 0, 0, 0, 0])),
            _ => {
                let ports = self.room.list.address();
                let mut poll =
                    Poll { ports: ports.into(), count: self.below(130), timeout: 1_000_000, ..Poll::default() };
                call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut poll);
            }
        }
        self.calm();
    }

    /// Has another vCPU come, or in dom0's place a domain come or go.
    fn others(&mut self) {
        let visitor = VISITOR.load(Ordering::SeqCst) as usize;
        if self.cpu == 0 && visitor != 0 && self.below(2) == 0 && smp::is_off(visitor) {
            smp::start(visitor, visit);
        }
        if self.is_dom0 && self.cpu == 0 {
            let pages = self.random.of(&[0, 16, 64, 600]);
            let pool = self.random.of(&[0, 1 << 16, 1 << 20]);
            let Ok(domain) = Domain::create(pages, pool) else {
                return crate::after::end_domains();
            };
            DOMAINS.store(domain.0.into(), Ordering::SeqCst);
            if domain.0 % MOST_DOMAINS as u16 == 0 {
                crate::after::end_domains();
            }
            for gfn in 0..self.below(8) {
                domain.populate(guests::domain::MEMORY + u64::from(gfn), self.random.of(&[0, 0, 0, 9])).ok();
            }
            if self.below(4) == 0 {
                domain.start(0x4000_0000).ok();
            }
            if self.below(2) == 0 {
                domain.destroy().ok();
            }
        }
    }
}

/// Writes a word at each of these places.
fn put(page: Frame, places: &[u32], value: u32) {
    places.iter().for_each(|&at| page.write(at, value));
}

/// The other vCPU's work.
fn visit() {
    for n in 0..8 {
        gic::send_sgi(gic::Target::Others, n);
        call(SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
    }
}

//! Instructions: coprocessors, modes, caches and the timer, from the kernel and from user mode.

use guests::exception::Kind;
use guests::harness::Verdict;
use guests::memory::{self, Frame, PAGE_SIZE};
use guests::{clock, cp15, ensure, ensure_eq, gic, interrupt, platform};

use crate::common::{Code, Random, code, hole, is, quiet};

/// Either it is undefined, or it does what it does for this guest.
fn is_harmless(result: Result<u32, guests::exception::Fault>) -> bool {
    result.is_ok() || is(result, Kind::Undefined) || is(result, Kind::DataAbort) || is(result, Kind::PrefetchAbort)
}

pub fn coprocessors_that_are_none() -> Verdict {
    let mut random = Random::new(93);
    for cp in (0..14).filter(|cp| !matches!(cp, 10 | 11)) {
        for _ in 0..24 {
            let (op1, crn, crm, op2) = (random.below(8), random.below(16), random.below(16), random.below(8));
            for read in [true, false] {
                let result = Code::page().run(&[code::register(read, cp, op1, crn, crm, op2)], 0, 0);
                ensure!(is(result, Kind::Undefined), cp);
                let result = Code::page().run(&[code::pair(read, cp, op1, crm)], 0, 0);
                ensure!(is(result, Kind::Undefined), cp);
            }
            // CDP; LDC and STC of [r0].
            for word in [0xee00_0000 | op1 << 20, 0xed90_0000, 0xed80_0000] {
                let result = Code::page().run(&[word | cp << 8 | crm], memory::UNMAPPED, 0);
                ensure!(is(result, Kind::Undefined), word | cp << 8);
            }
        }
    }
    Ok(())
}

pub fn coprocessors_in_user_mode() -> Verdict {
    let mut random = Random::new(102);
    for cp in 0..16 {
        for _ in 0..40 {
            let (op1, crn, crm, op2) = (random.below(8), random.below(16), random.below(16), random.below(8));
            // User mode may write its own thread register.
            let words = [code::register(random.below(2) == 0, cp, op1, crn, crm, op2)];
            let fault = Code::page().run_in_user_mode(&words, 0, 0);
            ensure!(fault.is_none_or(|fault| fault.kind == Kind::Undefined || fault.kind == Kind::DataAbort), words[0]);
        }
    }
    Ok(())
}

pub fn every_system_register_is_read() -> Verdict {
    for crn in 0..16 {
        for op1 in 0..8 {
            for crm in (0..16).step_by(if matches!(crn, 0 | 9 | 15) { 1 } else { 3 }) {
                for op2 in 0..8 {
                    let result = Code::page().run(&[code::register(true, 15, op1, crn, crm, op2)], 0, 0);
                    ensure!(is_harmless(result), code::register(true, 15, op1, crn, crm, op2));
                }
            }
        }
    }
    Ok(())
}

pub fn registers_of_the_hypervisor_are_read_and_written() -> Verdict {
    // HCR, HCPTR, HSTR, HDCR, HACR, HTCR, VTCR, HSCTLR, HACTLR, HDFAR, HIFAR, HPFAR, HVBAR, HTPIDR, CNTHCTL, HSR, HMAIR, VPIDR.
    let registers = [
        (1, 1, 0),
        (1, 1, 2),
        (1, 1, 3),
        (1, 1, 1),
        (1, 1, 7),
        (2, 0, 2),
        (2, 1, 2),
        (1, 0, 0),
        (1, 0, 1),
        (6, 0, 0),
        (6, 0, 2),
        (6, 0, 4),
        (12, 0, 0),
        (13, 0, 2),
        (14, 1, 0),
        (5, 2, 0),
        (10, 2, 0),
        (0, 0, 0),
    ];
    for (crn, crm, op2) in registers {
        for read in [true, false] {
            let result = Code::page().run(&[code::register(read, 15, 4, crn, crm, op2)], u32::MAX, 0);
            ensure!(is(result, Kind::Undefined), crn << 8 | crm << 4 | op2);
        }
    }
    // VTTBR, HTTBR, CNTVOFF, CNTHP_CVAL.
    for (op1, crm) in [(6, 2), (4, 2), (4, 14), (6, 14)] {
        for read in [true, false] {
            let result = Code::page().run(&[code::pair(read, 15, op1, crm)], u32::MAX, u32::MAX);
            ensure!(is(result, Kind::Undefined), op1 << 4 | crm);
        }
    }
    Ok(())
}

pub fn registers_of_the_core_are_written() -> Verdict {
    // c15, the cache size registers of the A15, lockdown: by chance.
    let mut random = Random::new(351);
    for _ in 0..400 {
        let (crn, crm) = (random.of(&[9, 10, 11, 15, 15, 15]), random.below(16));
        if crn == 10 && matches!(crm, 2 | 3) {
            // MAIR is this guest's own.
            continue;
        }
        let word = code::register(false, 15, random.below(8), crn, crm, random.below(8));
        ensure!(is_harmless(Code::page().run(&[word], random.word(), 0)), word);
    }
    let before = cp15::actlr();
    for value in [u32::MAX, 0, 1 << 6, 0x41] {
        cp15::write_actlr(value);
        ensure_eq!(cp15::actlr(), before, value);
    }
    Ok(())
}

pub fn modes_that_are_not_for_guests() -> Verdict {
    for mode in [0x16, 0x1a, 0x00, 0x14, 0x15, 0x18, 0x1c, 0x1e] {
        // mrs r2, cpsr; bic r3, r2, #0x1f; orr r3, r3, #mode; msr cpsr_c, r3; mrs r0, cpsr; msr cpsr_c, r2
        let words = [0xe10f_2000, 0xe3c2_301f, 0xe383_3000 | mode, 0xe121_f003, 0xe10f_0000, 0xe121_f002];
        let result = Code::page().run(&words, 0, 0);
        ensure!(is_harmless(result), mode);
        // Hyp and Monitor are reached by no way of the guest's.
        ensure!(result.map_or(true, |cpsr| !matches!(cpsr & 0x1f, 0x16 | 0x1a)), mode);
        // cps #mode
        let result = Code::page().run(&[0xe10f_2000, 0xf102_0000 | mode, 0xe10f_0000, 0xe121_f002], 0, 0);
        ensure!(result.map_or(true, |cpsr| !matches!(cpsr & 0x1f, 0x16 | 0x1a)), mode);
    }
    Ok(())
}

pub fn returns_to_the_hypervisor() -> Verdict {
    for mode in [0x1a, 0x16] {
        // mrs r2, cpsr; mov r12, lr; bic, orr; msr spsr_cxsf, r3; add lr, pc, #0; movs pc, lr; mrs r0, cpsr; msr cpsr_c, r2; mov lr, r12
        let words = [
            0xe10f_2000,
            0xe1a0_c00e,
            0xe3c2_301f,
            0xe383_3000 | mode,
            0xe16f_f003,
            0xe28f_e000,
            0xe1b0_f00e,
            0xe10f_0000,
            0xe121_f002,
            0xe1a0_e00c,
        ];
        let result = Code::page().run(&words, 0, 0);
        ensure!(result.map_or(true, |cpsr| !matches!(cpsr & 0x1f, 0x16 | 0x1a)), mode);
        // eret, in Supervisor mode: what that does is not defined, but it is no way to Hyp.
        let result = Code::page().run(&[0xe10f_0000], 0, 0);
        ensure!(result.is_ok_and(|cpsr| cpsr & 0x1f == 0x13), mode);
    }
    Ok(())
}

/// Of the banked registers of Hyp: ELR_hyp, SPSR_hyp, SP_hyp, by MRS and MSR.
pub fn banked_registers_of_the_hypervisor() -> Verdict {
    for word in [0xe10e_0300, 0xe14e_0300, 0xe10f_0300, 0xe12e_f300, 0xe16e_f300, 0xe12f_f300, 0xe10c_0300, 0xe14c_0300]
    {
        let result = Code::page().run(&[word], 0, 0);
        ensure!(is_harmless(result), word);
    }
    ensure_eq!(cp15::cpsr() & 0x1f, 0x13);
    Ok(())
}

pub fn breakpoints_and_other_states() -> Verdict {
    // bkpt: it is the guest's own prefetch abort. udf; bxj r14; enterx in ThumbEE is no way in from ARM state.
    ensure!(is_harmless(Code::page().run(&[0xe120_0070], 0, 0)));
    ensure!(is(Code::page().run(&[0xe7f0_00f0], 0, 0), Kind::Undefined));
    ensure!(is_harmless(Code::page().run(&[0xe12f_ff2e], 0, 0)));
    // Breakpoints, watchpoints, vector catch, the OS lock, the debug ROM's address.
    for (crn, crm, op2) in
        [(0, 0, 4), (0, 0, 5), (0, 0, 6), (0, 0, 7), (0, 7, 0), (0, 2, 2), (1, 0, 4), (1, 3, 4), (1, 0, 0)]
    {
        for read in [false, true] {
            ensure!(is_harmless(Code::page().run(&[code::register(read, 14, 0, crn, crm, op2)], u32::MAX, 0)), crm);
        }
    }
    Ok(())
}

pub fn waits_in_user_mode() -> Verdict {
    for n in 0..200 {
        // wfe, sev, yield, nop, wfe; with an interrupt pending WFI does not wait either.
        gic::send_sgi(gic::Target::Myself, 2);
        let words = [0xe320_f002, 0xe320_f004, 0xe320_f001, 0xe320_f000, 0xe320_f002, 0xe320_f003];
        ensure!(Code::page().run_in_user_mode(&words, 0, 0).is_none_or(|fault| fault.kind == Kind::Undefined), n);
    }
    quiet();
    Ok(())
}

pub fn vector_registers_in_every_state() -> Verdict {
    let page = Frame::take();
    // CPACR on; then VMSR of FPEXC and FPSCR, and an instruction that exceptions may be pending for.
    cp15::write_cpacr(cp15::cpacr() | 0xf0_0000);
    cp15::isb();
    for fpexc in [0x4000_0000, 0xc000_0000, 0x8000_0000, u32::MAX, 0] {
        for fpscr in [0, u32::MAX, 0x0307_9f00] {
            // vmsr fpexc, r0; vmsr fpscr, r1; vadd.f32 s0, s1, s2; vmrs r0, fpscr
            let result = Code::page().run(&[0xeee8_0a10, 0xeee1_1a10, 0xee30_0a81, 0xeef1_0a10], fpexc, fpscr);
            ensure!(is_harmless(result), fpexc);
        }
    }
    Code::page().run(&[0xeee8_0a10], 0x4000_0000, 0).ok();
    let mut random = Random::new(44);
    for _ in 0..600 {
        // Data processing of VFP and Advanced SIMD, and their loads and stores of [r0].
        let word = match random.below(3) {
            0 => 0xee00_0a00 | random.word() & 0x00ff_f1ef,
            1 => 0xf200_0000 | random.word() & 0x01ff_ffff,
            _ => 0xed90_0b00 | random.word() & 0x0040_f000 | 2,
        };
        ensure!(is_harmless(Code::page().run(&[word], page.address(), 0)), word);
    }
    Code::page().run(&[0xeee8_0a10], 0, 0).ok();
    cp15::write_cpacr(cp15::cpacr() & !0xf0_0000);
    Ok(())
}

pub fn coprocessor_instructions_by_chance() -> Verdict {
    let mut random = Random::new(2024);
    for n in 0..3000 {
        // The space of coprocessors but 10, 11 and 15; the base register is r0, the other one r1.
        let cp = random.of(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14]);
        let word = 0xec00_0000 | random.word() & 0x02f0_00ff | 1 << 12 | cp << 8;
        ensure!(is_harmless(Code::page().run(&[word], memory::UNMAPPED, 0)), n);
    }
    Ok(())
}

pub fn instructions_by_chance_in_user_mode() -> Verdict {
    let mut random = Random::new(9);
    for n in 0..3000 {
        // Miscellaneous, multiplies, media: no branches, and registers that lead nowhere.
        let word = match random.below(3) {
            0 => 0xe100_0000 | random.word() & 0x0060_0eff | 1 << 12,
            1 => 0xe000_0090 | random.word() & 0x00f0_0e0f | 1 << 12,
            _ => 0xe600_0010 | random.word() & 0x01f0_0eef | 1 << 12,
        };
        if word & 0x0fff_ffd0 == 0x012f_ff10 {
            continue;
        }
        let fault = Code::page().run_in_user_mode(&[word], memory::UNMAPPED, memory::UNMAPPED);
        ensure!(fault.is_none_or(|fault| fault.kind != Kind::SupervisorCall), n);
    }
    Ok(())
}

fn by_set_and_way(op1: u32, crm: u32, op2: u32, value: u32) {
    let _ = op1;
    Code::page().run(&[code::register(false, 15, 0, 7, crm, op2)], value, 0).ok();
}

pub fn caches_by_set_and_way() -> Verdict {
    let page = Frame::take();
    for offset in (0..PAGE_SIZE).step_by(4) {
        page.write(offset, offset ^ 0x1357_9bdf);
    }
    let mut random = Random::new(66);
    for n in 0..60 {
        // DCISW, DCCSW, DCCISW.
        by_set_and_way(0, random.of(&[6, 10, 14]), 2, random.word());
        ensure_eq!(page.read(n * 64), (n * 64) ^ 0x1357_9bdf, n);
    }
    Ok(())
}

pub fn caches_by_address_of_nothing() -> Verdict {
    let (hole, machine) = (hole()?, platform::get());
    for address in [hole.address(), machine.distributor, memory::UNMAPPED, 0, 0x0900_0000, u32::MAX, 0xe000_0000] {
        // DCIMVAC, DCCMVAC, DCCMVAU, DCCIMVAC, ICIMVAU, BPIMVA.
        for (crm, op2) in [(6, 1), (10, 1), (11, 1), (14, 1), (5, 1), (5, 7)] {
            let result = Code::page().run(&[code::register(false, 15, 0, 7, crm, op2)], address, 0);
            ensure!(is_harmless(result), address);
        }
    }
    Ok(())
}

pub fn lines_are_dropped_after_pages_change() -> Verdict {
    // Dropping the zeroes from the cache must not bring back the page's content from before it was given away.
    let page = Frame::take();
    for n in 0..64 {
        page.write(n * 64, 0x5ec2_e700 | n);
        ensure_eq!(crate::common::decrease(page.gfn()), 1, n);
        ensure_eq!(crate::common::populate(page.gfn()), 1, n);
        Code::page().run(&[code::register(false, 15, 0, 7, 6, 1)], page.address() + n * 64, 0).ok();
        ensure_eq!(page.read(n * 64), 0, n);
    }
    Ok(())
}

pub fn translations_are_asked_for() -> Verdict {
    let hole = hole()?;
    // ATS1CPR to ATS1CUW, ATS12NSO*, ATS1H*, of everything; PAR.
    for address in [hole.address(), 0, memory::UNMAPPED, u32::MAX, 0x4000_0000, platform::get().distributor] {
        for op2 in 0..8 {
            let result = Code::page().run(
                &[code::register(false, 15, 0, 7, 8, op2), code::register(true, 15, 0, 7, 4, 0)],
                address,
                0,
            );
            ensure!(is_harmless(result), op2);
            let result = Code::page().run(&[code::register(false, 15, 4, 7, 8, op2)], address, 0);
            ensure!(is(result, Kind::Undefined), op2);
        }
    }
    Ok(())
}

pub fn every_bit_of_sctlr() -> Verdict {
    let before = cp15::sctlr();
    // Not M, A, C, V, WXN, UWXN, EE, VE, TE: what this guest runs by.
    for bit in [10, 11, 12, 14, 17, 21, 22, 24, 27] {
        cp15::write_sctlr(before ^ 1 << bit);
        cp15::isb();
        ensure!(guests::hypercall::call(guests::hypercall::XEN_VERSION, [0; 5]) > 0, bit);
        cp15::write_sctlr(before);
        cp15::isb();
    }
    Ok(())
}

/// Deadlines at the ends of all ranges.
const TIMES: [u64; 8] = [0, 1, 1 << 31, 1 << 32, 1 << 55, 1 << 63, u64::MAX - 1, u64::MAX];

pub fn timers_at_the_ends_of_time() -> Verdict {
    for value in TIMES {
        for control in [interrupt::TIMER_ENABLED, interrupt::TIMER_ENABLED | interrupt::TIMER_MASKED, u32::MAX, 0] {
            cp15::write_cntv_cval(value);
            cp15::write_cntv_ctl(control);
            cp15::write_cntp_cval(value);
            cp15::write_cntp_ctl(control);
            cp15::write_cntv_tval(value as u32);
            cp15::write_cntp_tval(value as u32);
            let _ = (cp15::cntv_ctl(), cp15::cntp_ctl(), cp15::cntp_tval(), cp15::cntp_cval());
        }
    }
    cp15::write_cntv_ctl(0);
    cp15::write_cntp_ctl(0);
    quiet();
    // An honest one comes.
    cp15::write_cntv_tval(1);
    cp15::write_cntv_ctl(interrupt::TIMER_ENABLED);
    ensure!(clock::poll(|| cp15::cntv_ctl() & interrupt::TIMER_FIRED != 0));
    cp15::write_cntv_ctl(0);
    Ok(())
}

pub fn timers_of_others_are_set() -> Verdict {
    // CNTFRQ, CNTVOFF, CNTHP_*: none of them is a guest's.
    let before = cp15::cntfrq();
    Code::page().run(&[code::register(false, 15, 0, 14, 0, 0)], 1, 0).ok();
    ensure_eq!(cp15::cntfrq(), before);
    for (crm, op2) in [(1, 0), (2, 0), (2, 1)] {
        let result = Code::page().run(&[code::register(false, 15, 4, 14, crm, op2)], u32::MAX, 0);
        ensure!(is(result, Kind::Undefined), crm);
    }
    let kernel = cp15::cntkctl();
    for value in [0, u32::MAX, 0x303] {
        cp15::write_cntkctl(value);
        // mrrc p15, 1, r0, r1, c14 in user mode: the guest's kernel has said whether it may.
        let fault = Code::page().run_in_user_mode(&[code::pair(true, 15, 1, 14)], 0, 0);
        ensure_eq!(fault.is_some(), value == 0, value);
    }
    cp15::write_cntkctl(kernel);
    Ok(())
}

pub fn aborts_of_every_form() -> Verdict {
    let hole = hole()?;
    let words = [
        0xe590_0000_u32,
        0xe580_0000,
        0xe8b0_000e,
        0xe8a0_000e,
        0xe1c0_20d0,
        0xe1c0_20f0,
        0xe190_0f9f,
        0xf421_078f & !0x1_0000,
        0xe490_1004,
        0xe5b0_1004,
        0xe1b0_1fdf,
        0xe100_1092,
    ];
    for word in words {
        let result = Code::page().run(&[word], hole.address(), hole.address());
        ensure!(is(result, Kind::DataAbort) || is(result, Kind::Undefined), word);
    }
    Ok(())
}

//! Traps with made-up syndromes, from the match over exits on. On the host there is no interrupt controller, and every
//! guest address leads into guest frame 0.

use std::sync::Arc;

use armv7::guest::{GuestContext, has_async_abort, is_guest_mode};
use armv7::host::registers::{self, exception_return};
use armv7::syndrome::psr;
use proptest::prelude::{any, proptest};

use super::handle;
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::{Domain, Rights};
use crate::error::Errno;
use crate::vcpu::{Vcpu, halt, work};

const PC: u32 = 0x0001_0000;
const VBAR: u32 = 0x8000_0000;
const EAE: u32 = 1 << 31;

/// Exception classes of HSR (DDI 0406C.d B1.14.3).
mod class {
    pub const WAIT: u32 = 0x01;
    pub const CP15: u32 = 0x03;
    pub const CP15_WIDE: u32 = 0x04;
    pub const CP14: u32 = 0x05;
    pub const CP14_LOAD: u32 = 0x06;
    pub const HCPTR: u32 = 0x07;
    pub const JAZELLE: u32 = 0x09;
    pub const HVC: u32 = 0x12;
    pub const SMC: u32 = 0x13;
    pub const FETCH: u32 = 0x20;
    pub const DATA: u32 = 0x24;
}

/// A condition field that is valid: always.
const ALWAYS: u32 = 1 << 24 | 0xE << 20;
/// The same: only when Z is set.
const EQUAL: u32 = 1 << 24;
/// Reads of a coprocessor register.
const READ: u32 = 1;

/// Syndrome of a 32-bit instruction.
const fn hsr(class: u32, iss: u32) -> u32 {
    class << 26 | 1 << 25 | iss
}

/// MCR or MRC to CP15.
const fn register(crn: u32, opc1: u32, crm: u32, opc2: u32, rt: u32) -> u32 {
    ALWAYS | opc2 << 17 | opc1 << 14 | crn << 10 | rt << 5 | crm << 1
}

/// A guest on this CPU.
struct Running {
    domain: Arc<Domain>,
    vcpu: Arc<Vcpu>,
    context: GuestContext,
}

impl Running {
    fn new(ram: &[u32]) -> Self {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, ram);
        domain.set_vcpus(vec![vcpu.clone()]);
        vcpu.unhalt(halt::OFFLINE);
        vcpu.take_requests();
        registers::set_guest(0, VBAR, EAE);
        let mut context = GuestContext::default();
        context.r = core::array::from_fn(|n| 0x100 + n as u32);
        (context.pc, context.cpsr) = (PC, psr::MODE_SVC | psr::F);
        Self {
            domain,
            vcpu,
            context,
        }
    }

    fn trap_at(&mut self, syndrome: u32, address: u32, page: u32) {
        registers::set_trap(&registers::Trap {
            syndrome,
            address,
            page,
        });
        handle(&self.domain, &self.vcpu, &mut self.context);
    }

    fn trap(&mut self, syndrome: u32) {
        self.trap_at(syndrome, 0, 0);
    }

    /// Asserts that the guest goes on behind the instruction, at its old mode.
    fn assert_stepped(&self) {
        assert_eq!(
            (self.context.pc, self.context.cpsr),
            (PC + 4, psr::MODE_SVC | psr::F)
        );
    }

    /// Asserts that the guest goes on at one of its vectors.
    fn assert_took(&self, mode: u32, vector: u32, lr: u32) {
        assert_eq!(self.context.pc, VBAR + vector);
        assert_eq!(self.context.cpsr & psr::MODE, mode);
        assert_eq!(exception_return(), (mode, lr, psr::MODE_SVC | psr::F));
    }

    fn assert_undefined(&self) {
        self.assert_took(psr::MODE_UND, 0x04, PC + 4);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.vcpu.halt(halt::OFFLINE);
        crate::domain::registry::remove(self.domain.id);
    }
}

#[test]
fn a_hypercall_changes_its_result_register_and_nothing_else() {
    let mut guest = Running::new(&[0]);
    guest.context.r[12] = 99;
    let before = guest.context.clone();
    guest.trap(hsr(class::HVC, 0xEA1));
    assert_eq!(guest.context.r[0], Errno::NoSys.to_reg());
    assert_eq!(guest.context.r[1..], before.r[1..]);
    assert_eq!(
        (guest.context.pc, guest.context.cpsr),
        (before.pc, before.cpsr)
    );
}

#[test]
fn firmware_answers_both_conduits_and_only_smc_is_stepped_over() {
    const PSCI_VERSION: u32 = 0x8400_0000;
    let mut guest = Running::new(&[]);
    guest.context.r[0] = PSCI_VERSION;
    guest.trap(hsr(class::HVC, 0));
    assert_eq!((guest.context.r[0], guest.context.pc), (0x1_0001, PC));
    guest.context.r[0] = PSCI_VERSION;
    guest.trap(hsr(class::SMC, 0));
    assert_eq!(guest.context.r[0], 0x1_0001);
    guest.assert_stepped();
}

#[test]
fn another_hvc_is_undefined_at_the_hvc_itself() {
    let mut guest = Running::new(&[]);
    guest.context.pc = PC + 4;
    guest.trap(hsr(class::HVC, 7));
    guest.assert_undefined();
}

#[test]
fn wfi_blocks_unless_something_is_asked_of_the_vcpu() {
    let mut guest = Running::new(&[]);
    guest.vcpu.request(work::INTERRUPTS);
    guest.trap(hsr(class::WAIT, ALWAYS));
    guest.assert_stepped();
    assert_eq!(guest.vcpu.halted(), 0);
    guest.vcpu.take_requests();
    guest.trap(hsr(class::WAIT, ALWAYS));
    assert_eq!(guest.vcpu.halted(), halt::BLOCKED);
}

#[test]
fn wfe_does_not_block() {
    let mut guest = Running::new(&[]);
    guest.trap(hsr(class::WAIT, ALWAYS | 1));
    guest.assert_stepped();
    assert_eq!(guest.vcpu.halted(), 0);
}

#[test]
fn an_instruction_whose_condition_fails_is_stepped_over() {
    let mut guest = Running::new(&[]);
    guest.trap(hsr(class::WAIT, EQUAL));
    guest.assert_stepped();
    assert_eq!(guest.vcpu.halted(), 0);
    for class in [class::CP15, class::CP14, class::CP14_LOAD, class::HCPTR] {
        let mut guest = Running::new(&[]);
        let before = guest.context.r;
        guest.trap(hsr(class, EQUAL | READ));
        guest.assert_stepped();
        assert_eq!(guest.context.r, before);
    }
}

#[test]
fn a_16_bit_instruction_is_two_bytes_long() {
    let mut guest = Running::new(&[]);
    guest.context.cpsr |= psr::T;
    guest.trap(class::WAIT << 26 | ALWAYS | 1);
    assert_eq!(guest.context.pc, PC + 2);
}

#[test]
fn an_emulated_register_is_read_into_the_register_that_is_named() {
    let actlr = |rt| hsr(class::CP15, register(1, 0, 0, 1, rt) | READ);
    let mut guest = Running::new(&[]);
    registers::set_actlr(0xAC71);
    guest.trap(actlr(3));
    guest.assert_stepped();
    assert_eq!(guest.context.r[3], 0xAC71);
    assert_eq!(guest.context.r[2], 0x102);
    let mut guest = Running::new(&[]);
    guest.context.cpsr = psr::MODE_USR;
    guest.trap(actlr(3));
    assert_eq!(guest.context.pc, VBAR + 4, "not for user mode");
    assert_eq!(guest.context.r[3], 0x103);
}

#[test]
fn the_physical_timer_keeps_what_is_written() {
    let mut guest = Running::new(&[]);
    // MCRR p15, 2, r4, r5, c14; MRRC into r6, r7
    guest.trap(hsr(
        class::CP15_WIDE,
        ALWAYS | 2 << 16 | 5 << 10 | 4 << 5 | 14 << 1,
    ));
    guest.trap(hsr(
        class::CP15_WIDE,
        ALWAYS | 2 << 16 | 7 << 10 | 6 << 5 | 14 << 1 | READ,
    ));
    assert_eq!(guest.context.r[6..8], [0x104, 0x105]);
    assert_eq!(guest.context.pc, PC + 8);
    guest.context.pc = PC;
    guest.context.r[1] = 2;
    guest.trap(hsr(class::CP15, register(14, 0, 2, 1, 1)));
    guest.assert_stepped();
    guest.context.pc = PC;
    guest.trap(hsr(class::CP15, register(14, 0, 2, 1, 9) | READ));
    assert_eq!(guest.context.r[9], 2);
}

#[test]
fn what_no_table_names_is_undefined() {
    for syndrome in [
        hsr(class::CP15, register(15, 0, 0, 0, 1)),
        hsr(class::CP15, register(11, 0, 2, 0, 1) | READ),
        hsr(class::CP15_WIDE, ALWAYS | 4 << 16 | 14 << 1),
        hsr(class::CP14, register(0, 1, 0, 0, 1) | READ),
        hsr(class::CP14_LOAD, ALWAYS),
        hsr(class::HCPTR, ALWAYS | 5),
        hsr(class::JAZELLE, ALWAYS),
        hsr(0, 0),
        hsr(0x3F, 0),
    ] {
        let mut guest = Running::new(&[]);
        let before = guest.context.r;
        guest.trap(syndrome);
        guest.assert_undefined();
        assert_eq!(guest.context.r, before, "{syndrome:#x}");
    }
}

#[test]
fn cleaning_by_set_and_way_traps_again_until_all_memory_is_through() {
    let ram: Vec<u32> = (0..2 * super::CLEANED_AT_ONCE + 1).collect();
    let mut guest = Running::new(&ram);
    let dccisw = hsr(class::CP15, register(7, 0, 14, 2, 1));
    let mut traps = 1;
    guest.trap(dccisw);
    while guest.context.pc == PC {
        assert!(traps < 100, "it ends");
        guest.trap(dccisw);
        traps += 1;
    }
    guest.assert_stepped();
    assert!(traps > 2);
    // The next operation of the loop is done at once.
    guest.context.pc = PC;
    guest.context.r[1] += 1 << 6;
    guest.trap(dccisw);
    guest.assert_stepped();
}

/// Fault status: translation, level 3.
const TRANSLATION: u32 = 0b00_0111;
const WRITE: u32 = 1 << 6;

#[test]
fn an_access_to_nothing_is_an_external_abort() {
    let mut guest = Running::new(&[]);
    guest.trap_at(hsr(class::DATA, TRANSLATION | WRITE), 0xDEAD_B000, 0x4_2000);
    guest.assert_took(psr::MODE_ABT, 0x10, PC + 8);
    let [dfsr, dfar, ..] = registers::faults();
    assert_eq!((dfsr, dfar), (0xA10, 0xDEAD_B000));
    let mut guest = Running::new(&[]);
    guest.trap_at(hsr(class::FETCH, TRANSLATION), 0xDEAD_C000, 0x4_2000);
    guest.assert_took(psr::MODE_ABT, 0x0C, PC + 4);
    let [.., ifsr, ifar] = registers::faults();
    assert_eq!((ifsr, ifar), (0x210, 0xDEAD_C000));
}

#[test]
fn an_access_that_the_map_allows_by_now_is_tried_again() {
    let mut guest = Running::new(&[0]);
    for class in [class::DATA, class::FETCH] {
        guest.trap_at(hsr(class, TRANSLATION), 0x123, 0);
        assert_eq!(
            (guest.context.pc, guest.context.cpsr),
            (PC, psr::MODE_SVC | psr::F)
        );
    }
}

/// The fault was met by a walk of the guest's own tables.
const ON_WALK: u32 = 1 << 7;

#[test]
fn a_fault_on_a_walk_is_tried_again_unless_the_tables_are_missing() {
    const LONG: u64 = 1 << 11;
    const FAULT: u64 = 1;
    const FSTAGE: u64 = 1 << 9;
    const PERMISSION: u64 = 0b00_1111 << 1;
    const NO_ENTRY: u64 = 0b00_0111 << 1;
    let took_it = |par, syndrome| {
        let mut guest = Running::new(&[0]);
        registers::set_translation(par);
        guest.trap_at(hsr(class::DATA, syndrome), 0x123, 0);
        registers::set_translation(0);
        guest.context.pc != PC
    };
    // A write to a page that the guest's kernel has yet to copy; a page that it has yet to fetch; a page that is there.
    for par in [LONG | PERMISSION | FAULT, LONG | NO_ENTRY | FAULT, LONG] {
        assert!(!took_it(par, TRANSLATION | ON_WALK | WRITE), "{par:#x}");
    }
    assert!(took_it(
        LONG | FSTAGE | NO_ENTRY | FAULT,
        TRANSLATION | ON_WALK | WRITE
    ));
}

#[test]
fn an_access_that_the_memory_system_refuses_is_not_tried_again() {
    // External abort; external abort on a walk, level 2; parity error; TLB conflict.
    for status in [0b01_0000, 0b01_0110, 0b01_1000, 0b11_0000] {
        let mut guest = Running::new(&[0]);
        guest.trap_at(hsr(class::DATA, status), 0x123, 0);
        guest.assert_took(psr::MODE_ABT, 0x10, PC + 8);
        let [dfsr, dfar, ..] = registers::faults();
        assert_eq!((dfsr, dfar), (0x210, 0x123), "{status:#b}");
    }
}

#[test]
fn an_asynchronous_abort_is_left_to_the_guest_to_take() {
    for status in [0b01_0001, 0b01_1001] {
        let mut guest = Running::new(&[0]);
        let before = guest.context.clone();
        guest.trap_at(hsr(class::DATA, status), 0x123, 0);
        assert!(has_async_abort(), "{status:#b}");
        assert_eq!(
            (guest.context.pc, guest.context.cpsr),
            (before.pc, before.cpsr)
        );
        assert_eq!(registers::faults(), [0; 4], "the hardware fills them in");
        guest.vcpu.registers.lock().cpu.save();
        assert!(!has_async_abort());
    }
}

proptest! {
    #[test]
    fn no_syndrome_leads_out_of_the_guest(syndrome: u32, address: u32, page in any::<u32>(), mode in 0x10u32..0x20) {
        let mut guest = Running::new(&[0]);
        guest.context.r = [0; 13];
        guest.context.cpsr = mode;
        if is_guest_mode(mode) {
            guest.trap_at(syndrome, address, page & 0x0FFF_FFFF);
            assert!(is_guest_mode(guest.context.cpsr));
        }
    }
}

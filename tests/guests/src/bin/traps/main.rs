//! Traps: the exceptions that the hypervisor injects, exactly as the architecture would take them; the instructions that
//! it emulates, in every form; and the registers that must survive all that (DDI 0406C.d B1.8, B1.14; abi.md 9).
#![no_std]
#![no_main]

mod state;

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, reservation};
use guests::exception::{
    Fault, Kind, MASK_ASYNC_ABORT, MASK_IRQ, MODE_ABORT, MODE_MASK, MODE_SUPERVISOR, MODE_UNDEFINED, MODE_USER, Probe,
    THUMB, catch,
};
use guests::gic::{self, distributor};
use guests::harness::Verdict;
use guests::hypercall::{self, call};
use guests::memory::{self, Frame};
use guests::status::EFAULT;
use guests::{clock, cp15, ensure, ensure_eq, interrupt, smp, suite};

suite! { "traps":
    an_undefined_instruction_goes_straight_to_the_guest,
    an_injected_undefined_instruction_is_exact_in_arm_state,
    an_injected_undefined_instruction_is_exact_in_thumb_state,
    an_undefined_hvc_is_exact,
    an_injected_exception_keeps_the_flags_in_the_spsr,
    an_injected_exception_sets_its_masks,

    a_load_from_nowhere_is_a_data_abort,
    a_store_to_nowhere_is_a_data_abort,
    a_translation_table_in_nowhere_is_an_abort,
    an_injected_data_abort_has_the_architectural_lr_in_arm_state,
    an_injected_data_abort_has_the_architectural_lr_in_thumb_state,
    an_injected_data_abort_tells_address_and_status,
    accesses_of_every_form_to_nowhere_are_data_aborts,
    a_fetch_from_nowhere_is_a_prefetch_abort,
    an_injected_prefetch_abort_has_the_architectural_lr,
    an_injected_prefetch_abort_tells_address_and_status,

    user_mode_may_not_make_hypercalls,
    user_mode_may_not_call_firmware,
    user_mode_may_not_read_trapped_registers,
    user_mode_aborts_come_from_user_mode,

    midr_and_mpidr_are_the_virtual_ones,
    identification_registers_are_readable,
    actlr_is_readable_and_ignores_writes,
    debug_identification_repeats_variant_and_revision,
    debug_registers_are_zero_and_ignore_writes,
    performance_monitors_are_zero_and_ignore_writes,
    implementation_defined_registers_are_undefined,
    trace_and_other_coprocessors_are_undefined,
    cache_operations_by_set_and_way_are_accepted,
    an_emulated_access_goes_to_the_register_it_names,
    an_emulated_access_in_fiq_mode_uses_the_banked_registers,

    a_trapped_instruction_whose_condition_fails_does_nothing,
    a_trapped_instruction_in_an_it_block_advances_it,
    a_wfi_whose_condition_fails_does_not_wait,
    an_emulated_load_in_an_it_block_advances_it,
    emulated_loads_advance_by_the_instructions_size,
    an_emulated_load_can_extend_its_sign,
    an_emulated_load_with_write_back_is_whole_or_aborts,
    a_paired_load_from_the_distributor_is_a_data_abort,

    state::traps_change_no_other_register,
    state::vector_registers_survive_traps,
    state::vector_registers_survive_other_vcpus,
    state::banked_and_system_registers_survive_other_vcpus,

    short_descriptors_give_short_fault_status,
    short_descriptors_translate_hypercall_pointers,
}

/// Declares functions in assembly whose first instruction is the one of interest, so that its address is the function's.
macro_rules! probes {
    ($state:literal: $($name:ident = $($line:literal),+;)*) => {
        core::arch::global_asm!(
            ".arch_extension virt", ".arch_extension sec", ".fpu neon", $state,
            $(
                ".balign 4",
                concat!(".global ", stringify!($name)),
                concat!(".type ", stringify!($name), ", %function"),
                concat!(stringify!($name), ":"),
                $($line,)+
                "bx lr",
            )*
            ".arm",
        );
        unsafe extern "C" { $(fn $name(a: u32, b: u32) -> u32;)* }
    };
}
pub(crate) use probes;

probes! { ".arm":
    udf = "udf #0";
    arm_c15 = "mrc p15, 0, r0, c15, c0, 0";
    arm_hvc_1 = "hvc #1";
    load = "ldr r0, [r0]";
    store = "str r1, [r0]";
    load_byte = "ldrb r0, [r0]";
    load_signed_byte = "ldrsb r0, [r0]";
    load_halfword = "ldrh r0, [r0]";
    load_pair = "ldrd r0, r1, [r0]";
    load_multiple = "ldm r0, {{r1-r3}}";
    load_exclusive = "ldrex r0, [r0]";
    load_post_indexed = "ldr r1, [r0], #4";
    load_pre_indexed = "ldr r1, [r0, #4]!";
    store_pair = "strd r0, r1, [r0]";
    store_multiple = "stm r0, {{r0-r3}}";
    load_vector = "vld1.32 {{d0}}, [r0]";
    load_and_base = "ldr r1, [r0], #4", "mov r0, r0";
    jump = "bx r0";
    // From user mode: the instruction is the second, and SVC comes back if it did not fault.
    user_hvc = "cps #0x10", "hvc #0xea1", "svc #0";
    user_smc = "cps #0x10", "smc #0", "svc #0";
    user_actlr = "cps #0x10", "mrc p15, 0, r0, c1, c0, 1", "svc #0";
    user_load = "cps #0x10", "ldr r0, [r0]", "svc #0";
    flags_then_c15 = "msr apsr_nzcvq, r0", "mrc p15, 0, r0, c15, c0, 0";
    irqs_on_then_c15 = "cpsie i", "mrc p15, 0, r0, c15, c0, 0";
    // Debug and performance registers: write, then read.
    dbgdidr = "mrc p14, 0, r0, c0, c0, 0";
    dbgdscrint = "mrc p14, 0, r0, c0, c1, 0";
    dbgvcr = "mcr p14, 0, r0, c0, c7, 0", "mrc p14, 0, r0, c0, c7, 0";
    dbgdscrext = "mcr p14, 0, r0, c0, c2, 2", "mrc p14, 0, r0, c0, c2, 2";
    dbgbvr0 = "mcr p14, 0, r0, c0, c0, 4", "mrc p14, 0, r0, c0, c0, 4";
    dbgbcr0 = "mcr p14, 0, r0, c0, c0, 5", "mrc p14, 0, r0, c0, c0, 5";
    dbgwvr0 = "mcr p14, 0, r0, c0, c0, 6", "mrc p14, 0, r0, c0, c0, 6";
    dbgwcr0 = "mcr p14, 0, r0, c0, c0, 7", "mrc p14, 0, r0, c0, c0, 7";
    dbgoslar = "mcr p14, 0, r0, c1, c0, 4", "mov r0, #0";
    dbgosdlr = "mrc p14, 0, r0, c1, c3, 4";
    pmcr = "mcr p15, 0, r0, c9, c12, 0", "mrc p15, 0, r0, c9, c12, 0";
    pmcntenset = "mcr p15, 0, r0, c9, c12, 1", "mrc p15, 0, r0, c9, c12, 1";
    pmccntr = "mcr p15, 0, r0, c9, c13, 0", "mrc p15, 0, r0, c9, c13, 0";
    pmuserenr = "mcr p15, 0, r0, c9, c14, 0", "mrc p15, 0, r0, c9, c14, 0";
    c15_write = "mcr p15, 0, r0, c15, c0, 1";
    c15_pair = "mrrc p15, 0, r0, r1, c15";
    lockdown_c9 = "mrc p15, 0, r0, c9, c5, 0";
    lockdown_c10 = "mrc p15, 0, r0, c10, c4, 0";
    lockdown_c11 = "mrc p15, 0, r0, c11, c0, 0";
    trace = "mrc p14, 1, r0, c0, c0, 0";
    coprocessor_0 = "cdp p0, 0, c0, c0, c0, 0";
    coprocessor_7 = "mrc p7, 0, r0, c0, c0, 0";
    coprocessor_12 = "ldc p12, c0, [r0]";
    ctr = "mrc p15, 0, r0, c0, c0, 1";
    id_pfr0 = "mrc p15, 0, r0, c0, c1, 0";
    id_pfr1 = "mrc p15, 0, r0, c0, c1, 1";
    id_mmfr0 = "mrc p15, 0, r0, c0, c1, 4";
    id_isar0 = "mrc p15, 0, r0, c0, c2, 0";
    clidr = "mrc p15, 1, r0, c0, c0, 1";
    set_way = "mcr p15, 0, r0, c7, c14, 2", "dsb", "mcr p15, 0, r0, c7, c10, 2", "dsb";
    // Z is set by the comparison; NE fails.
    condition_fails = "cmp r0, r0", "mrcne p15, 0, r0, c1, c0, 1", "mcrne p15, 0, r0, c15, c0, 0", "ldrne r0, [r1]";
    condition_holds = "cmp r0, r0", "mrceq p15, 0, r0, c1, c0, 1";
    wfi_fails = "cmp r0, r0", "wfine", "mov r0, #1";
    // r1-r14 each loaded from the address in r0 (sp excepted); the number of those that got what r1 got.
    load_into_each = "push {{r4-r11, lr}}", "ldr r1, [r0]", "ldr r2, [r0]", "ldr r3, [r0]", "ldr r4, [r0]", "ldr r5, [r0]",
        "ldr r6, [r0]", "ldr r7, [r0]", "ldr r8, [r0]", "ldr r9, [r0]", "ldr r10, [r0]", "ldr r11, [r0]", "ldr r12, [r0]",
        "ldr lr, [r0]", "mov r0, #1", "cmp r2, r1", "addeq r0, r0, #1", "cmp r3, r1", "addeq r0, r0, #1",
        "cmp r4, r1", "addeq r0, r0, #1", "cmp r5, r1", "addeq r0, r0, #1", "cmp r6, r1", "addeq r0, r0, #1",
        "cmp r7, r1", "addeq r0, r0, #1", "cmp r8, r1", "addeq r0, r0, #1", "cmp r9, r1", "addeq r0, r0, #1",
        "cmp r10, r1", "addeq r0, r0, #1", "cmp r11, r1", "addeq r0, r0, #1", "cmp r12, r1", "addeq r0, r0, #1",
        "cmp lr, r1", "addeq r0, r0, #1", "pop {{r4-r11, pc}}";
    // In FIQ mode r8-r14 are other registers: loads into r8 and lr there, leaves r8_usr alone. The number of right ones.
    load_into_fiq = "push {{r4-r11, lr}}", "mov r8, #0x55", "ldr r1, [r0]", "cps #0x11", "mov r8, #0", "ldr r8, [r0]",
        "ldr lr, [r0]", "mov r2, r8", "mov r3, lr", "cps #0x13", "mov r0, #0", "cmp r2, r1", "addeq r0, r0, #1",
        "cmp r3, r1", "addeq r0, r0, #1", "cmp r8, #0x55", "addeq r0, r0, #1", "pop {{r4-r11, pc}}";
}

probes! { ".thumb\n.syntax unified":
    thumb_c15 = "mrc p15, 0, r0, c15, c0, 0";
    thumb_load = "ldr r0, [r0]";
    thumb_wide_load = "ldr.w r0, [r0]";
    // ITTE: both conditional instructions run, the third does not, and what follows is unconditional again.
    thumb_it_actlr = "cmp r0, r0", "mov.w r2, #0", "itte eq", "mrceq p15, 0, r0, c1, c0, 1", "addeq r2, #1", "addne r2, #4",
        "adds r2, #8", "mov r0, r2";
    thumb_it_load = "cmp r0, r0", "mov.w r2, #0", "itte eq", "ldreq r0, [r0]", "addeq r2, #1", "addne r2, #4", "adds r2, #8",
        "mov r0, r2";
    // 16-bit and 32-bit encodings: an advance by the wrong size would skip an addition or run half an instruction.
    thumb_loads = "mov r3, r0", "movs r2, #0", "ldr r0, [r3]", "adds r2, #1", "ldr.w r0, [r3]", "adds r2, #1",
        "ldrb.w r0, [r3, r1]", "adds r2, #1", "mov r0, r2";
}

// Functions of more than two arguments or with a state of their own.
global_asm!(
    ".arch_extension virt",
    ".fpu neon",
    ".arm",
    // u32 trap_with_patterns(device, out): patterns in r2-r12 and flags, then an emulated load, ACTLR, a hypercall; stores
    // r2-r12 and the CPSR.
    ".global trap_with_patterns",
    "trap_with_patterns:",
    "push {{r4-r11, lr}}",
    "push {{r1}}",
    "mov lr, r0",
    "ldr r2, =0x22222222",
    "ldr r3, =0x33333333",
    "ldr r4, =0x44444444",
    "ldr r5, =0x55555555",
    "ldr r6, =0x66666666",
    "ldr r7, =0x77777777",
    "ldr r8, =0x88888888",
    "ldr r9, =0x99999999",
    "ldr r10, =0xaaaaaaaa",
    "ldr r11, =0xbbbbbbbb",
    "mov r12, #17",
    "msr apsr_nzcvq, #0x58000000",
    "ldr r0, [lr]",
    "str r0, [lr]",
    "mrc p15, 0, r0, c1, c0, 1",
    "mov r0, #0",
    "hvc #0xea1",
    "wfe",
    "pop {{r1}}",
    "stm r1!, {{r2-r12}}",
    "mrs r0, cpsr",
    "str r0, [r1]",
    "pop {{r4-r11, pc}}",
    // enable_vector(_, _): CPACR and FPEXC.
    ".global enable_vector",
    "enable_vector:",
    "mrc p15, 0, r0, c1, c0, 2",
    "orr r0, r0, #0xf00000",
    "mcr p15, 0, r0, c1, c0, 2",
    "isb",
    "mov r0, #0x40000000",
    "vmsr fpexc, r0",
    "bx lr",
    // vector_features(_, _): MVFR0.
    ".global vector_features",
    "vector_features:",
    "vmrs r0, mvfr0",
    "bx lr",
    // load_vectors(from, fpscr), store_vectors(to, _) -> fpscr: d0-d31, or d0-d15 where there are no more.
    ".global load_vectors, store_vectors",
    "load_vectors:",
    "vldmia r0!, {{d0-d15}}",
    "vmrs r2, mvfr0",
    "tst r2, #2",
    "beq 1f",
    "vldmia r0, {{d16-d31}}",
    "1: vmsr fpscr, r1",
    "bx lr",
    "store_vectors:",
    "vstmia r0!, {{d0-d15}}",
    "vmrs r2, mvfr0",
    "tst r2, #2",
    "beq 1f",
    "vstmia r0, {{d16-d31}}",
    "1:",
    "vmrs r0, fpscr",
    "bx lr",
    ".ltorg",
    // switch_regime(ttbcr, ttbr0): runs at its guest-physical address, which both regimes map identically; touches no
    // memory while translation is off.
    ".global switch_regime",
    "switch_regime:",
    "dsb",
    "mrc p15, 0, r2, c1, c0, 0",
    "bic r3, r2, #1",
    "mcr p15, 0, r3, c1, c0, 0",
    "isb",
    "mcr p15, 0, r0, c2, c0, 2",
    "mcr p15, 0, r1, c2, c0, 0",
    "tst r0, #0x80000000",
    "mov r3, #0",
    "mcrrne p15, 0, r1, r3, c2",
    "mvn r3, #0",
    "mcr p15, 0, r3, c3, c0, 0", // DACR: no permission checks with short descriptors
    "mcr p15, 0, r0, c8, c7, 0",
    "mcr p15, 0, r0, c7, c5, 0",
    "dsb",
    "isb",
    "mcr p15, 0, r2, c1, c0, 0",
    "isb",
    "bx lr",
);

unsafe extern "C" {
    fn trap_with_patterns(device: u32, out: u32) -> u32;
    fn enable_vector(a: u32, b: u32) -> u32;
    fn vector_features(a: u32, b: u32) -> u32;
    fn load_vectors(from: u32, fpscr: u32) -> u32;
    fn store_vectors(to: u32, unused: u32) -> u32;
    fn switch_regime(ttbcr: u32, ttbr0: u32) -> u32;
}

fn address(probe: Probe) -> u32 {
    probe as *const () as u32 & !1
}

/// An address that stage 1 maps and stage 2 does not.
fn nowhere() -> u32 {
    static HOLE: AtomicU32 = AtomicU32::new(0);
    if HOLE.load(Ordering::Relaxed) == 0 {
        let frame = Frame::take();
        if reservation(abi::MEM_DECREASE_RESERVATION, &mut [frame.gfn()], 0) != 1 {
            panic!("decrease_reservation failed");
        }
        HOLE.store(frame.address(), Ordering::Relaxed);
    }
    HOLE.load(Ordering::Relaxed)
}

fn is(result: Result<u32, Fault>, kind: Kind) -> bool {
    matches!(result, Err(fault) if fault.kind == kind)
}

fn an_undefined_instruction_goes_straight_to_the_guest() -> Verdict {
    let Err(fault) = catch(udf, 0, 0) else { return no_fault(line!()) };
    ensure!(fault.kind == Kind::Undefined);
    ensure_eq!(fault.lr, address(udf) + 4);
    Ok(())
}

/// The verdict where an exception did not come.
fn no_fault(line: u32) -> Verdict {
    Err(guests::harness::Failure { line, what: "exception taken", got: 0, wanted: 1, at: guests::harness::At(None) })
}

/// Checks everything that entry to the Undefined mode defines (DDI 0406C.d B1.9.2).
fn is_exact_undefined(fault: &Fault, lr: u32, thumb: u32) -> Verdict {
    ensure!(fault.kind == Kind::Undefined);
    ensure_eq!(fault.entry_cpsr & MODE_MASK, MODE_UNDEFINED);
    ensure_eq!(fault.spsr & MODE_MASK, MODE_SUPERVISOR);
    ensure_eq!(fault.spsr & THUMB, thumb);
    ensure_eq!(fault.lr, lr);
    Ok(())
}

fn an_injected_undefined_instruction_is_exact_in_arm_state() -> Verdict {
    let Err(fault) = catch(arm_c15, 0, 0) else { return no_fault(line!()) };
    is_exact_undefined(&fault, address(arm_c15) + 4, 0)
}

fn an_injected_undefined_instruction_is_exact_in_thumb_state() -> Verdict {
    let Err(fault) = catch(thumb_c15, 0, 0) else { return no_fault(line!()) };
    is_exact_undefined(&fault, address(thumb_c15) + 2, THUMB)
}

fn an_undefined_hvc_is_exact() -> Verdict {
    let Err(fault) = catch(arm_hvc_1, 0, 0) else { return no_fault(line!()) };
    is_exact_undefined(&fault, address(arm_hvc_1) + 4, 0)
}

fn an_injected_exception_keeps_the_flags_in_the_spsr() -> Verdict {
    for flags in [0, 0xf800_0000, 0x5000_0000] {
        let Err(fault) = catch(flags_then_c15, flags, 0) else { return no_fault(line!()) };
        ensure_eq!(fault.spsr & 0xf800_0000, flags, flags);
    }
    Ok(())
}

fn an_injected_exception_sets_its_masks() -> Verdict {
    // I is set by every exception, A by an abort only; E and T follow SCTLR.
    let Err(undefined) = catch(irqs_on_then_c15, 0, 0) else { return no_fault(line!()) };
    cp15::disable_interrupts();
    ensure_eq!(undefined.spsr & MASK_IRQ, 0);
    ensure_eq!(undefined.entry_cpsr & MASK_IRQ, MASK_IRQ);
    ensure_eq!(undefined.entry_cpsr & MASK_ASYNC_ABORT, undefined.spsr & MASK_ASYNC_ABORT);
    ensure_eq!(undefined.entry_cpsr & (1 << 9 | THUMB), 0);
    let Err(abort) = catch(load, nowhere(), 0) else { return no_fault(line!()) };
    ensure_eq!(abort.entry_cpsr & (MASK_IRQ | MASK_ASYNC_ABORT), MASK_IRQ | MASK_ASYNC_ABORT);
    Ok(())
}

fn a_load_from_nowhere_is_a_data_abort() -> Verdict {
    let Err(fault) = catch(load, nowhere(), 0) else { return no_fault(line!()) };
    ensure!(fault.kind == Kind::DataAbort);
    ensure_eq!(fault.entry_cpsr & MODE_MASK, MODE_ABORT);
    ensure_eq!(fault.spsr & (MODE_MASK | THUMB), MODE_SUPERVISOR);
    Ok(())
}

fn a_store_to_nowhere_is_a_data_abort() -> Verdict {
    ensure!(is(catch(store, nowhere(), 0), Kind::DataAbort));
    Ok(())
}

fn a_translation_table_in_nowhere_is_an_abort() -> Verdict {
    let probes = [(load as Probe, Kind::DataAbort), (store, Kind::DataAbort), (jump, Kind::PrefetchAbort)];
    for (index, (probe, kind)) in probes.into_iter().enumerate() {
        memory::set_table_of_unmapped(Some(nowhere()));
        let long = catch(probe, memory::UNMAPPED, 0);
        memory::set_table_of_unmapped(None);
        ensure!(is(long, kind), index);
    }
    Ok(())
}

fn an_injected_data_abort_has_the_architectural_lr_in_arm_state() -> Verdict {
    let Err(fault) = catch(load, nowhere(), 0) else { return no_fault(line!()) };
    ensure_eq!(fault.lr, address(load) + 8);
    Ok(())
}

fn an_injected_data_abort_has_the_architectural_lr_in_thumb_state() -> Verdict {
    for probe in [thumb_load as Probe, thumb_wide_load] {
        let Err(fault) = catch(probe, nowhere(), 0) else { return no_fault(line!()) };
        ensure_eq!(fault.spsr & THUMB, THUMB);
        ensure_eq!(fault.lr, address(probe) + 8);
    }
    Ok(())
}

/// How a status register is encoded (DDI 0406C.d B3.13).
#[derive(Clone, Copy)]
enum Format {
    Short,
    Long,
}

impl Format {
    /// Returns whether a DFSR or IFSR in this format holds an injected abort's status: a synchronous external abort, as from
    /// a bus without a device there, or the debug event that Xen reports instead (abi.md 9.4).
    fn is_injected(self, status: u32) -> bool {
        // Apart from ExT and WnR.
        match (self, status & !0x1800) {
            (Format::Short, status) => matches!(status, 0x008 | 0x002),
            (Format::Long, status) => matches!(status, 0x210 | 0x222),
        }
    }
}

fn an_injected_data_abort_tells_address_and_status() -> Verdict {
    for offset in [0, 4, 0xffc] {
        let Err(fault) = catch(load, nowhere() + offset, 0) else { return no_fault(line!()) };
        ensure_eq!(fault.dfar, nowhere() + offset);
        ensure!(Format::Long.is_injected(fault.dfsr), fault.dfsr);
    }
    Ok(())
}

fn accesses_of_every_form_to_nowhere_are_data_aborts() -> Verdict {
    // SAFETY: enables the vector unit.
    unsafe { enable_vector(0, 0) };
    let probes: [Probe; 11] = [
        load_byte,
        load_signed_byte,
        load_halfword,
        load_pair,
        load_multiple,
        load_exclusive,
        load_post_indexed,
        load_pre_indexed,
        store_pair,
        store_multiple,
        load_vector,
    ];
    for (index, probe) in probes.into_iter().enumerate() {
        ensure!(is(catch(probe, nowhere(), 0), Kind::DataAbort), index);
    }
    Ok(())
}

fn a_fetch_from_nowhere_is_a_prefetch_abort() -> Verdict {
    let Err(fault) = catch(jump, nowhere(), 0) else { return no_fault(line!()) };
    ensure!(fault.kind == Kind::PrefetchAbort);
    ensure_eq!(fault.entry_cpsr & MODE_MASK, MODE_ABORT);
    Ok(())
}

fn an_injected_prefetch_abort_has_the_architectural_lr() -> Verdict {
    for thumb in [0, 1] {
        let Err(fault) = catch(jump, nowhere() | thumb, 0) else { return no_fault(line!()) };
        ensure_eq!(fault.lr, nowhere() + 4, thumb);
    }
    Ok(())
}

fn an_injected_prefetch_abort_tells_address_and_status() -> Verdict {
    let Err(fault) = catch(jump, nowhere() + 64, 0) else { return no_fault(line!()) };
    ensure_eq!(fault.ifar, nowhere() + 64);
    ensure!(Format::Long.is_injected(fault.ifsr), fault.ifsr);
    Ok(())
}

fn user_mode_may_not_make_hypercalls() -> Verdict {
    let Err(fault) = catch(user_hvc, 0, 0) else { return no_fault(line!()) };
    ensure!(fault.kind == Kind::Undefined);
    ensure_eq!(fault.spsr & MODE_MASK, MODE_USER);
    ensure_eq!(fault.lr, address(user_hvc) + 8);
    Ok(())
}

fn user_mode_may_not_call_firmware() -> Verdict {
    ensure!(is(catch(user_smc, 0, 0), Kind::Undefined));
    Ok(())
}

fn user_mode_may_not_read_trapped_registers() -> Verdict {
    ensure!(is(catch(user_actlr, 0, 0), Kind::Undefined));
    Ok(())
}

fn user_mode_aborts_come_from_user_mode() -> Verdict {
    let Err(fault) = catch(user_load, nowhere(), 0) else { return no_fault(line!()) };
    ensure!(fault.kind == Kind::DataAbort);
    ensure_eq!(fault.spsr & MODE_MASK, MODE_USER);
    Ok(())
}

fn midr_and_mpidr_are_the_virtual_ones() -> Verdict {
    // A Cortex-A15 of any revision.
    ensure_eq!(cp15::midr() & 0xff0f_fff0, 0x410f_c0f0);
    ensure_eq!(cp15::mpidr(), 0x8000_0000_u32);
    static OTHER: AtomicU32 = AtomicU32::new(0);
    ensure!(smp::run_on(1, || OTHER.store(cp15::mpidr(), Ordering::SeqCst)));
    ensure_eq!(OTHER.load(Ordering::SeqCst), 0x8000_0001_u32);
    Ok(())
}

fn identification_registers_are_readable() -> Verdict {
    for (index, probe) in [ctr as Probe, id_pfr0, id_pfr1, id_mmfr0, id_isar0, clidr].into_iter().enumerate() {
        ensure!(catch(probe, 0, 0).is_ok_and(|value| value != 0), index);
    }
    Ok(())
}

fn actlr_is_readable_and_ignores_writes() -> Verdict {
    let before = cp15::actlr();
    cp15::write_actlr(!before);
    ensure_eq!(cp15::actlr(), before);
    Ok(())
}

fn debug_identification_repeats_variant_and_revision() -> Verdict {
    // One watchpoint, two breakpoints, version 7.1; MIDR's variant in [7:4], its revision in [3:0] (C11.11.15).
    let midr = cp15::midr();
    let expected = 1 << 24 | 5 << 16 | (midr >> 20 & 0xf) << 4 | (midr & 0xf);
    ensure_eq!(catch(dbgdidr, 0, 0).unwrap_or(0), expected);
    Ok(())
}

fn debug_registers_are_zero_and_ignore_writes() -> Verdict {
    let probes: [Probe; 9] = [dbgdscrint, dbgvcr, dbgdscrext, dbgbvr0, dbgbcr0, dbgwvr0, dbgwcr0, dbgoslar, dbgosdlr];
    for (index, probe) in probes.into_iter().enumerate() {
        ensure_eq!(catch(probe, u32::MAX, 0).unwrap_or(u32::MAX), 0, index);
    }
    Ok(())
}

fn performance_monitors_are_zero_and_ignore_writes() -> Verdict {
    for (index, probe) in [pmcr as Probe, pmcntenset, pmccntr, pmuserenr].into_iter().enumerate() {
        ensure_eq!(catch(probe, u32::MAX, 0).unwrap_or(u32::MAX), 0, index);
    }
    Ok(())
}

fn implementation_defined_registers_are_undefined() -> Verdict {
    for (index, probe) in
        [arm_c15 as Probe, c15_write, c15_pair, lockdown_c9, lockdown_c10, lockdown_c11].into_iter().enumerate()
    {
        ensure!(is(catch(probe, 0, 0), Kind::Undefined), index);
    }
    Ok(())
}

fn trace_and_other_coprocessors_are_undefined() -> Verdict {
    for (index, probe) in [trace as Probe, coprocessor_0, coprocessor_7, coprocessor_12].into_iter().enumerate() {
        ensure!(is(catch(probe, 0, 0), Kind::Undefined), index);
    }
    Ok(())
}

fn cache_operations_by_set_and_way_are_accepted() -> Verdict {
    let frame = Frame::take();
    frame.write(0, 0x1234_5678);
    for way in 0..2 {
        ensure!(catch(set_way, way << 31, 0).is_ok(), way);
    }
    ensure_eq!(frame.read(0), 0x1234_5678);
    Ok(())
}

fn an_emulated_access_goes_to_the_register_it_names() -> Verdict {
    ensure_eq!(catch(load_into_each, distributor(gic::TYPER), 0).unwrap_or(0), 13);
    Ok(())
}

fn an_emulated_access_in_fiq_mode_uses_the_banked_registers() -> Verdict {
    ensure_eq!(catch(load_into_fiq, distributor(gic::TYPER), 0).unwrap_or(0), 3);
    Ok(())
}

fn a_trapped_instruction_whose_condition_fails_does_nothing() -> Verdict {
    ensure_eq!(catch(condition_fails, 0x1234, nowhere()).unwrap_or(0), 0x1234);
    ensure_eq!(catch(condition_holds, 0x1234, 0).unwrap_or(0x1234), cp15::actlr());
    Ok(())
}

fn a_trapped_instruction_in_an_it_block_advances_it() -> Verdict {
    ensure_eq!(catch(thumb_it_actlr, 0, 0).unwrap_or(0), 9);
    Ok(())
}

fn a_wfi_whose_condition_fails_does_not_wait() -> Verdict {
    // Nothing is pending and no timer runs: a wait would not end but for the guard.
    interrupt::reset();
    gic::enable(gic::VIRTUAL_TIMER);
    let start = clock::now();
    cp15::write_cntv_cval(start + clock::ticks(clock::PATIENCE_US));
    cp15::write_cntv_ctl(interrupt::TIMER_ENABLED);
    let result = catch(wfi_fails, 0, 0);
    cp15::write_cntv_ctl(0);
    gic::disable(gic::VIRTUAL_TIMER);
    ensure_eq!(result.unwrap_or(0), 1);
    ensure!(clock::now() - start < clock::ticks(clock::PATIENCE_US));
    Ok(())
}

fn an_emulated_load_in_an_it_block_advances_it() -> Verdict {
    ensure_eq!(catch(thumb_it_load, distributor(gic::TYPER), 0).unwrap_or(0), 9);
    Ok(())
}

fn emulated_loads_advance_by_the_instructions_size() -> Verdict {
    ensure_eq!(catch(thumb_loads, distributor(gic::IPRIORITYR), 0).unwrap_or(0), 3);
    Ok(())
}

fn an_emulated_load_can_extend_its_sign() -> Verdict {
    const PPI: u32 = 20;
    gic::set_priority(PPI, 0x98);
    let byte = distributor(gic::IPRIORITYR + PPI);
    ensure_eq!(catch(load_byte, byte, 0).unwrap_or(0), 0x98);
    ensure_eq!(catch(load_signed_byte, byte, 0).unwrap_or(0), 0xffff_ff98_u32);
    Ok(())
}

fn an_emulated_load_with_write_back_is_whole_or_aborts() -> Verdict {
    // The syndrome is invalid for this form (HSR.ISV = 0): a hypervisor that does not decode the instruction aborts it.
    let base = distributor(gic::TYPER);
    match catch(load_and_base, base, 0) {
        Ok(written_back) => ensure_eq!(written_back, base + 4),
        Err(fault) => ensure!(fault.kind == Kind::DataAbort),
    }
    Ok(())
}

fn a_paired_load_from_the_distributor_is_a_data_abort() -> Verdict {
    ensure!(is(catch(load_pair, distributor(gic::CTLR), 0), Kind::DataAbort));
    ensure!(is(catch(load_multiple, distributor(gic::CTLR), 0), Kind::DataAbort));
    Ok(())
}

/// Short-descriptor tables that map what boot.S maps (DDI 0406C.d B3.5): sections for the identity, small pages for the
/// image. Returns the table's guest-physical address.
fn short_tables() -> u32 {
    // Section: AP 11, TEX 001 C B (Normal write-back), S; or Device (TEX 000 B) and XN. TRE and AFE are 0.
    const SECTION_NORMAL: u32 = 0x1_1c0e;
    const SECTION_DEVICE: u32 = 0xc16;
    const TABLE: u32 = 1;
    // Small page: AP 11, TEX 001 C B, S.
    const PAGE_NORMAL: u32 = 0x47e;
    const MIB: u32 = 1 << 20;
    const IMAGE: u32 = 0xc000_0000;

    let level1 = Frame::take_aligned(4);
    let level2 = Frame::take();
    let entry = |index: u32, value: u32| level1.nth(index / 1024).write(index % 1024 * 4, value);
    for section in 0..0xc00 {
        let attributes = if section < 0x400 { SECTION_DEVICE } else { SECTION_NORMAL };
        entry(section, (section * MIB) | attributes);
    }
    for half in 0..2 {
        entry(IMAGE / MIB + half, (level2.address() + half * 1024) | TABLE);
    }
    for page in 0..512 {
        level2.write(page * 4, (memory::physical(IMAGE) + page * memory::PAGE_SIZE) | PAGE_NORMAL);
    }
    level1.address()
}

/// Runs `work` with short descriptors.
fn with_short_descriptors<T>(work: impl FnOnce() -> T) -> T {
    // Walks are inner-shareable write-back: TTBR0.{IRGN,S,RGN} (B4.1.154).
    const WALK: u32 = 0x4a;
    let (ttbcr, ttbr0) = (cp15::ttbcr(), memory::level1_table());
    let tables = short_tables();
    let switch = memory::physical(address(switch_regime));
    // SAFETY: the address is the same function's in the identity map, and both regimes map it, the caller and the stack.
    let switch: Probe = unsafe { core::mem::transmute(switch as usize) };
    // SAFETY: as above.
    unsafe { switch(0, tables | WALK) };
    let result = work();
    // SAFETY: back to the tables of boot.S.
    unsafe { switch(ttbcr, ttbr0) };
    result
}

fn short_descriptors_give_short_fault_status() -> Verdict {
    let hole = nowhere();
    let (data, prefetch) = with_short_descriptors(|| (catch(load, hole, 0), catch(jump, hole, 0)));
    let (Err(data), Err(prefetch)) = (data, prefetch) else { return no_fault(line!()) };
    ensure!(data.kind == Kind::DataAbort && prefetch.kind == Kind::PrefetchAbort);
    ensure!(Format::Short.is_injected(data.dfsr), data.dfsr);
    ensure_eq!(data.dfar, hole);
    ensure!(Format::Short.is_injected(prefetch.ifsr), prefetch.ifsr);
    ensure_eq!(prefetch.ifar, hole);
    Ok(())
}

fn short_descriptors_translate_hypercall_pointers() -> Verdict {
    const XENVER_GET_FEATURES: u32 = 6;
    let mut info = [0_u32, 0];
    let pointer = hypercall::address_of(&mut info);
    let features = |pointer| call(hypercall::XEN_VERSION, [XENVER_GET_FEATURES, pointer, 0, 0, 0]);
    let (good, bad) = with_short_descriptors(|| (features(pointer), features(memory::UNMAPPED)));
    ensure_eq!(good, 0);
    ensure!(info[1] != 0);
    ensure_eq!(bad, EFAULT);
    Ok(())
}

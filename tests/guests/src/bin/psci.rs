//! PSCI and SMCCC: every function, by both conduits, and the life of a secondary vCPU (abi.md 3.6, 3.2).
#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::exception::{MASK_ASYNC_ABORT, MASK_FIQ, MASK_IRQ, MODE_SUPERVISOR, THUMB};
use guests::harness::{Failure, Verdict};
use guests::memory::{self, Frame};
use guests::psci::{
    AFFINITY_INFO, CPU_OFF, CPU_ON, CPU_SUSPEND, FEATURES, MIGRATE_INFO_TYPE, OFF, ON, SMCCC_ARCH_FEATURES,
    SMCCC_VERSION, SYSTEM_OFF, SYSTEM_RESET, VERSION, call, call_by_hvc, call_by_smc,
};
use guests::status::psci::{ALREADY_ON, INVALID_PARAMETERS, NOT_SUPPORTED, SUCCESS};
use guests::{clock, cp15, ensure, ensure_eq, gic, interrupt, platform, smp, suite};

suite! { "psci":
    version_is_1_1_by_both_conduits,
    both_conduits_preserve_all_but_the_result_registers,
    migration_is_not_required,
    features_know_what_is_implemented,
    features_deny_what_is_not,
    smccc_version_is_1_1,
    architecture_features_deny_the_unknown,
    the_hypervisor_service_has_xens_uid,
    the_hypervisor_service_tells_calls_and_revision,
    the_vendor_hypervisor_service_does_not_exist,
    the_standard_service_tells_calls_and_revision,
    unknown_functions_are_not_supported,
    functions_of_the_64_bit_convention_are_not_supported,

    affinity_info_tells_on_from_off,
    affinity_info_refuses_high_levels,
    affinity_info_covers_a_cluster_at_level_1,
    cpu_on_of_a_running_vcpu_is_refused,
    cpu_on_of_an_absent_vcpu_is_refused,
    a_started_vcpu_has_the_boot_state,
    a_started_vcpu_has_its_own_number,
    a_vcpu_may_start_in_thumb_state,
    a_second_cpu_on_finds_the_vcpu_on,
    cpu_off_and_on_may_be_repeated,
    the_functions_of_version_0_1_are_served,
    an_interrupt_to_a_vcpu_that_is_off_is_lost,
    a_vcpu_can_be_started_by_smc,
}

global_asm!(
    ".arm",
    // Entry of a vCPU with the MMU off; r0 = guest-physical address of six words to fill. Switches itself off.
    ".global record_entry",
    "record_entry:",
    "str r0, [r0]",
    "mrs r1, cpsr",
    "str r1, [r0, #4]",
    "mrc p15, 0, r1, c1, c0, 0", // SCTLR
    "str r1, [r0, #8]",
    "mrc p15, 0, r1, c2, c0, 2", // TTBCR
    "str r1, [r0, #12]",
    "mrc p15, 0, r1, c0, c0, 5", // MPIDR
    "str r1, [r0, #16]",
    "mrc p15, 0, r1, c2, c0, 0", // TTBR0
    "str r1, [r0, #20]",
    "dsb",
    "ldr r0, =0x84000002",
    ".inst 0xe1400070",
    "b .",
    ".ltorg",
    // Likewise in Thumb state: shows that bit 0 of the entry address selected it.
    ".thumb",
    ".thumb_func",
    ".global record_thumb_entry",
    "record_thumb_entry:",
    "str r0, [r0]",
    "mrs r1, cpsr",
    "str r1, [r0, #4]",
    // The T bit reads as zero in the CPSR; that these encodings did what they say in Thumb state shows it.
    "movs r1, #0x20",
    "str r1, [r0, #8]",
    "dsb",
    "mov.w r0, #0x84000000",
    "adds r0, #2",
    ".inst.w 0xf7e08000", // hvc #0
    "b .",
    ".arm",
    // u32 preservation(result registers out, smc): makes PSCI_VERSION with patterns in r4-r11; the number of losses.
    ".global preservation",
    "preservation:",
    "push {{r4-r11, lr}}",
    "cmp r1, #0",
    "mov r4, #0x44",
    "mov r5, #0x55",
    "mov r6, #0x66",
    "mov r7, #0x77",
    "mov r8, #0x88",
    "mov r9, #0x99",
    "mov r10, #0xaa",
    "mov r11, #0xbb",
    "mov r12, #0xcc",
    "mov r0, #0x84000000",
    "bne 1f",
    ".inst 0xe1400070",
    "b 2f",
    "1: .inst 0xe1600070",
    "2: mov r0, #0",
    "cmp r4, #0x44",
    "addne r0, r0, #1",
    "cmp r5, #0x55",
    "addne r0, r0, #1",
    "cmp r6, #0x66",
    "addne r0, r0, #1",
    "cmp r7, #0x77",
    "addne r0, r0, #1",
    "cmp r8, #0x88",
    "addne r0, r0, #1",
    "cmp r9, #0x99",
    "addne r0, r0, #1",
    "cmp r10, #0xaa",
    "addne r0, r0, #1",
    "cmp r11, #0xbb",
    "addne r0, r0, #1",
    "cmp r12, #0xcc",
    "addne r0, r0, #1",
    "pop {{r4-r11, pc}}",
);

unsafe extern "C" {
    fn record_entry();
    fn record_thumb_entry();
    fn preservation(unused: u32, smc: u32) -> u32;
}

fn version_is_1_1_by_both_conduits() -> Verdict {
    ensure_eq!(call_by_hvc(VERSION, 0, 0, 0)[0], 0x1_0001);
    ensure_eq!(call_by_smc(VERSION, 0, 0, 0)[0], 0x1_0001);
    Ok(())
}

fn both_conduits_preserve_all_but_the_result_registers() -> Verdict {
    for smc in [0, 1] {
        // SAFETY: PSCI_VERSION has no effect; the probe restores what it must.
        ensure_eq!(unsafe { preservation(0, smc) }, 0, smc);
    }
    Ok(())
}

fn migration_is_not_required() -> Verdict {
    ensure_eq!(call(MIGRATE_INFO_TYPE, 0, 0, 0), 2);
    Ok(())
}

fn features_know_what_is_implemented() -> Verdict {
    for function in [
        VERSION,
        CPU_SUSPEND,
        CPU_OFF,
        CPU_ON,
        AFFINITY_INFO,
        MIGRATE_INFO_TYPE,
        SYSTEM_OFF,
        SYSTEM_RESET,
        FEATURES,
        SMCCC_VERSION,
    ] {
        ensure_eq!(call(FEATURES, function, 0, 0), SUCCESS, function);
    }
    Ok(())
}

fn features_deny_what_is_not() -> Verdict {
    // MIGRATE, MIGRATE_INFO_UP_CPU, SYSTEM_SUSPEND, SET_SUSPEND_MODE, SYSTEM_RESET2, nonsense.
    for function in [0x8400_0005, 0x8400_0007, 0x8400_000e, 0x8400_000f, 0x8400_0012, 0, u32::MAX] {
        ensure_eq!(call(FEATURES, function, 0, 0), NOT_SUPPORTED, function);
    }
    Ok(())
}

fn smccc_version_is_1_1() -> Verdict {
    ensure_eq!(call(SMCCC_VERSION, 0, 0, 0), 0x1_0001);
    Ok(())
}

fn architecture_features_deny_the_unknown() -> Verdict {
    for function in [0x8000_0002, 0x8000_7fff - 0x100, 0x8400_0000, u32::MAX] {
        ensure_eq!(call(SMCCC_ARCH_FEATURES, function, 0, 0), NOT_SUPPORTED, function);
    }
    Ok(())
}

/// "General service queries" of the hypervisor's and the standard service's range (DEN 0028 6.2).
const HYPERVISOR_CALL_COUNT: u32 = 0x8500_ff00;
const HYPERVISOR_CALL_UID: u32 = 0x8500_ff01;
const HYPERVISOR_REVISION: u32 = 0x8500_ff03;
/// Owner 6, where Linux looks for KVM.
const VENDOR_HYPERVISOR_CALL_UID: u32 = 0x8600_ff01;
const STANDARD_CALL_COUNT: u32 = 0x8400_ff00;
const STANDARD_REVISION: u32 = 0x8400_ff03;

fn the_hypervisor_service_has_xens_uid() -> Verdict {
    let uid = [0xdc12_18a7, 0x6943_98c6, 0xd179_cf9a, 0x67e6_de8d];
    ensure!(call_by_hvc(HYPERVISOR_CALL_UID, 0, 0, 0) == uid);
    ensure!(call_by_smc(HYPERVISOR_CALL_UID, 0, 0, 0) == uid);
    Ok(())
}

fn the_hypervisor_service_tells_calls_and_revision() -> Verdict {
    ensure_eq!(call(HYPERVISOR_CALL_COUNT, 0, 0, 0), 3);
    let revision = call_by_hvc(HYPERVISOR_REVISION, 0, 0, 0);
    ensure_eq!(revision[0], 0);
    ensure_eq!(revision[1], 1);
    Ok(())
}

fn the_vendor_hypervisor_service_does_not_exist() -> Verdict {
    ensure_eq!(call(VENDOR_HYPERVISOR_CALL_UID, 0, 0, 0), NOT_SUPPORTED);
    Ok(())
}

fn the_standard_service_tells_calls_and_revision() -> Verdict {
    ensure!(call(STANDARD_CALL_COUNT, 0, 0, 0) > 0);
    let revision = call_by_hvc(STANDARD_REVISION, 0, 0, 0);
    ensure_eq!(revision[0], 0);
    ensure_eq!(revision[1], 1);
    Ok(())
}

fn unknown_functions_are_not_supported() -> Verdict {
    // Standard, hypervisor, SiP, OEM, trusted application and trusted OS ranges, and a yielding call.
    for function in [0x8400_0080, 0x8600_0000, 0x8200_0000, 0x8300_0001, 0xb000_0000, 0xbf00_ff01, 0x0400_0000] {
        ensure_eq!(call_by_hvc(function, 0, 0, 0)[0], NOT_SUPPORTED as u32, function);
        ensure_eq!(call_by_smc(function, 0, 0, 0)[0], NOT_SUPPORTED as u32, function);
    }
    Ok(())
}

fn functions_of_the_64_bit_convention_are_not_supported() -> Verdict {
    for function in [0xc400_0001, 0xc400_0003, 0xc400_0004, 0xc600_ff01] {
        ensure_eq!(call(function, 0, 0, 0), NOT_SUPPORTED, function);
    }
    Ok(())
}

/// Nonzero when the other vCPU may go off again.
static RELEASED: AtomicU32 = AtomicU32::new(0);

/// Switches vCPU 1 on until `release`: how long something takes is no measure where vCPUs share CPUs.
fn hold() -> i32 {
    RELEASED.store(0, Ordering::SeqCst);
    smp::start(1, || _ = clock::poll(|| RELEASED.load(Ordering::SeqCst) != 0))
}

/// Lets vCPU 1 go off, and waits for it.
#[must_use]
fn release() -> bool {
    RELEASED.store(1, Ordering::SeqCst);
    smp::goes_off(1)
}

fn affinity_info_tells_on_from_off() -> Verdict {
    ensure_eq!(call(AFFINITY_INFO, 0, 0, 0), ON);
    ensure_eq!(call(AFFINITY_INFO, 1, 0, 0), OFF);
    ensure_eq!(hold(), SUCCESS);
    let held = call(AFFINITY_INFO, 1, 0, 0);
    ensure!(release());
    ensure_eq!(held, ON);
    Ok(())
}

fn affinity_info_refuses_high_levels() -> Verdict {
    for level in [3, 4, u32::MAX] {
        ensure_eq!(call(AFFINITY_INFO, 0, level, 0), INVALID_PARAMETERS, level);
    }
    Ok(())
}

fn affinity_info_covers_a_cluster_at_level_1() -> Verdict {
    // Affinity level 0 is ignored: vCPU 1 is off, its cluster is not.
    for level in [1, 2] {
        ensure_eq!(call(AFFINITY_INFO, 1, level, 0), ON, level);
    }
    Ok(())
}

fn cpu_on_of_a_running_vcpu_is_refused() -> Verdict {
    ensure_eq!(call(CPU_ON, 0, smp::entry(), 0), ALREADY_ON);
    Ok(())
}

fn cpu_on_of_an_absent_vcpu_is_refused() -> Verdict {
    for target in [platform::get().cpus, 0xf, 0x100] {
        ensure_eq!(call(CPU_ON, target, smp::entry(), 0), INVALID_PARAMETERS, target);
    }
    Ok(())
}

/// Starts vCPU 1 at `entry` with the address of a fresh frame as its context; returns the frame once it is off.
fn record(entry: u32) -> Result<Frame, Failure> {
    let frame = Frame::take();
    // The vCPU writes with its caches off.
    cp15::clean_and_invalidate(frame.address());
    ensure_eq!(call(CPU_ON, 1, entry, frame.address()), SUCCESS);
    ensure!(smp::goes_off(1));
    Ok(frame)
}

fn a_started_vcpu_has_the_boot_state() -> Verdict {
    let record = record(memory::physical(record_entry as *const () as u32))?;
    ensure_eq!(record.read(0), record.address());
    ensure_eq!(record.read(4), 0x4000_0000 | MASK_ASYNC_ABORT | MASK_IRQ | MASK_FIQ | MODE_SUPERVISOR);
    ensure_eq!(record.read(8), 0x00c5_0078);
    ensure_eq!(record.read(12), 0);
    ensure_eq!(record.read(20), 0);
    Ok(())
}

fn a_started_vcpu_has_its_own_number() -> Verdict {
    let record = record(memory::physical(record_entry as *const () as u32))?;
    ensure_eq!(record.read(16), 0x8000_0001_u32);
    ensure_eq!(cp15::mpidr(), 0x8000_0000_u32);
    Ok(())
}

fn a_vcpu_may_start_in_thumb_state() -> Verdict {
    let entry = memory::physical(record_thumb_entry as *const () as u32) | 1;
    let record = record(entry)?;
    ensure_eq!(record.read(0), record.address());
    ensure_eq!(record.read(4) & !THUMB, 0x4000_01d3);
    ensure_eq!(record.read(8), THUMB);
    Ok(())
}

fn a_second_cpu_on_finds_the_vcpu_on() -> Verdict {
    ensure_eq!(hold(), SUCCESS);
    let second = call(CPU_ON, 1, smp::entry(), 1);
    ensure!(release());
    ensure_eq!(second, ALREADY_ON);
    Ok(())
}

fn cpu_off_and_on_may_be_repeated() -> Verdict {
    let before = smp::starts(1);
    for round in 0..50 {
        ensure!(smp::run_on(1, || {}), round);
    }
    ensure_eq!(smp::starts(1) - before, 50);
    Ok(())
}

fn the_functions_of_version_0_1_are_served() -> Verdict {
    // The device tree's cpu_on property; cpu_off is 1.
    const LEGACY_CPU_ON: u32 = 2;
    static LEFT: AtomicU32 = AtomicU32::new(0);
    ensure!(smp::run_on(1, || {}));
    let before = smp::starts(1);
    ensure_eq!(call(LEGACY_CPU_ON, 1, smp::entry(), 1), SUCCESS);
    ensure!(smp::goes_off(1));
    ensure_eq!(smp::starts(1) - before, 1);

    const LEGACY_CPU_OFF: u32 = 1;
    ensure!(smp::run_on(1, || {
        call(LEGACY_CPU_OFF, 0, 0, 0);
        LEFT.store(1, Ordering::SeqCst);
    }));
    ensure_eq!(LEFT.load(Ordering::SeqCst), 0);
    Ok(())
}

fn an_interrupt_to_a_vcpu_that_is_off_is_lost() -> Verdict {
    ensure!(smp::is_off(1));
    gic::send_sgi(gic::Target::List(2), 5);
    ensure!(smp::run_on(1, interrupt::settle));
    ensure_eq!(interrupt::total_on(1), 0);
    Ok(())
}

fn a_vcpu_can_be_started_by_smc() -> Verdict {
    ensure!(smp::run_on(1, || {}));
    let before = smp::starts(1);
    ensure_eq!(call_by_smc(CPU_ON, 1, smp::entry(), 1)[0], 0);
    ensure!(smp::goes_off(1));
    ensure_eq!(smp::starts(1) - before, 1);
    ensure_eq!(call(AFFINITY_INFO, 1, 0, 0), OFF);
    Ok(())
}

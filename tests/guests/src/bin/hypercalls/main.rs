//! Hypercalls: the calling convention, the rules for guest pointers, and every call whose result a guest can check by
//! itself (abi.md sections 1 and 2). Event channels and grants have guests of their own.
#![no_std]
#![no_main]

mod memory_op;
mod version;

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, DOMID_ABSENT, DOMID_SELF, HvmParameter, Poll, add_to_physmap, remove_from_physmap};
use guests::console::{PARAM_CONSOLE_EVTCHN, PARAM_CONSOLE_PFN};
use guests::exception::{Kind, catch};
use guests::gic::VIRTUAL_TIMER;
use guests::harness::Verdict;
use guests::hypercall::{self, VCPU_OP, address_of, call, call_with};
use guests::memory::{self, Frame, PAGE_SIZE, Slot};
use guests::status::{E2BIG, EACCES, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO, EPERM, ESRCH};
use guests::{clock, console, cp15, ensure, ensure_eq, event, gic, interrupt, platform, suite};

use version::{XENVER_GET_FEATURES, features, is_dom0};

suite! { "hypercalls":
    unknown_numbers_return_enosys_and_do_nothing_else,
    a_hypercall_changes_no_register_but_r0,
    a_hypercall_changes_no_condition_flag,
    a_thumb_caller_is_served_alike,
    another_hvc_immediate_is_an_undefined_instruction,
    null_unmapped_and_device_pointers_return_efault,
    a_structure_that_runs_into_an_unmapped_page_returns_efault,
    output_to_a_read_only_page_returns_efault_and_writes_nothing,
    a_structure_may_cross_into_another_frame_at_any_byte,

    version::version_needs_no_pointer,
    version::extraversion_fills_exactly_sixteen_bytes,
    version::compile_info_fills_exactly_144_bytes,
    version::capabilities_name_the_armv7_guest_type,
    version::changeset_fills_exactly_64_bytes,
    version::platform_parameters_are_one_64_bit_word,
    version::features_of_submap_0_are_those_of_the_domain,
    version::features_of_another_submap_are_refused,
    version::pagesize_wants_a_null_pointer,
    version::guest_handle_fills_exactly_sixteen_bytes,
    version::commandline_is_a_terminated_string,
    version::build_id_tells_its_size_and_then_itself,
    version::other_version_commands_return_enosys,

    console_write_takes_all_and_returns_zero,
    console_read_without_input_returns_zero,
    console_refuses_bad_commands_counts_and_pointers,

    memory_op::reservation_counts_agree_with_the_device_tree,
    memory_op::maximum_gpfn_covers_ram,
    memory_op::maximum_ram_page_covers_ram,
    memory_op::reservation_counts_of_an_absent_domain_return_esrch,
    memory_op::decreased_pages_are_gone_and_populated_pages_come_back,
    memory_op::decrease_stops_at_a_hole_and_tells_how_far_it_got,
    memory_op::decrease_of_a_two_megabyte_extent_is_one_extent,
    memory_op::populate_beyond_the_order_limit_does_nothing,
    memory_op::reservation_with_a_bad_list_does_nothing,
    memory_op::reservation_without_extents_does_nothing,
    memory_op::shared_info_can_be_in_one_place_only,
    memory_op::shared_info_can_be_moved_by_removing_it_first,
    memory_op::shared_info_has_one_page,
    memory_op::a_grant_frame_can_be_mapped_and_removed,
    memory_op::grant_frames_beyond_the_limit_are_refused,
    memory_op::spaces_of_other_architectures_return_enosys,
    memory_op::add_to_physmap_of_an_absent_domain_returns_esrch,
    memory_op::add_to_physmap_batch_reports_each_page,
    memory_op::foreign_pages_of_oneself_are_refused,
    memory_op::foreign_pages_of_an_absent_domain_return_esrch,
    memory_op::remove_of_a_hole_returns_enoent,
    memory_op::memory_operations_of_other_architectures_return_enosys,
    memory_op::memory_exchange_is_not_supported_for_translated_domains,
    memory_op::claim_pages_wants_a_plain_request,
    memory_op::acquire_resource_serves_other_domains_only,

    multicall_runs_all_entries_and_stores_each_result,
    multicall_stores_nothing_but_results,
    multicall_of_nothing_succeeds,
    multicall_refuses_to_nest,
    multicall_with_an_unreadable_list_returns_efault,
    a_long_multicall_lets_interrupts_in,

    vm_assist_knows_the_runstate_flag_only,
    physdev_operations_return_enosys,
    xsm_operations_return_enosys,
    control_calls_check_their_interface_version,

    hvm_parameters_of_oneself_are_readable,
    hvm_parameters_of_oneself_are_not_writable,
    unknown_hvm_parameters_return_einval,
    unknown_hvm_operations_return_enosys,

    platform_op_checks_version_and_command,
    settime_updates_the_shared_wallclock,

    yield_returns_zero,
    poll_refuses_more_than_128_ports,
    poll_with_a_deadline_in_the_past_returns_at_once,
    shutdown_of_an_absent_domain_returns_esrch,
    watchdogs_are_handed_out_twice_and_can_be_stopped,
    unknown_scheduler_commands_return_enosys,

    vcpu_op_knows_registration_only,
    vcpu_op_on_an_absent_vcpu_returns_enoent,
    runstate_is_running_and_its_time_adds_up,
    vcpu_info_must_be_aligned_and_within_its_page,
    vcpu_info_can_be_registered_once_and_raises_an_upcall,
}

/// Fills the buffer before each call; what a call leaves of it was not written.
const POISON: u8 = 0xa5;

global_asm!(
    ".arm",
    // u32 convention_probe(&mut [u32; 15] out, _): loads patterns into r1-r11, the hypercall number into r12, sets all
    // flags, makes the call, and stores r0-r12 and the CPSR.
    ".global convention_probe",
    "convention_probe:",
    "push {{r0, r4-r11, lr}}",
    "mov r0, #0",
    "ldr r1, =0x11111111",
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
    "msr apsr_nzcvq, #0xf8000000",
    ".inst 0xe140ea71",
    "ldr lr, [sp]",
    "stm lr!, {{r0-r12}}",
    "mrs r0, cpsr",
    "str r0, [lr]",
    "pop {{r0, r4-r11, pc}}",
    ".ltorg",
    // u32 thumb_version(_, _): the hypercall from Thumb state.
    ".thumb",
    ".thumb_func",
    ".global thumb_version",
    "thumb_version:",
    "movs r0, #0",
    "mov.w r12, #17",
    ".inst.w 0xf7e08ea1",
    "bx lr",
    ".arm",
    // HVC with immediates that mean nothing.
    ".global hvc_1, hvc_ea0, hvc_ea2, hvc_ffff",
    "hvc_1: .inst 0xe1400071",
    "bx lr",
    "hvc_ea0: .inst 0xe140ea70",
    "bx lr",
    "hvc_ea2: .inst 0xe140ea72",
    "bx lr",
    "hvc_ffff: .inst 0xe14fff7f",
    "bx lr",
    // u32 load_word(address, _)
    ".global load_word",
    "load_word: ldr r0, [r0]",
    "bx lr",
);

unsafe extern "C" {
    fn convention_probe(out: u32, unused: u32) -> u32;
    fn thumb_version(a: u32, b: u32) -> u32;
    fn hvc_1(a: u32, b: u32) -> u32;
    fn hvc_ea0(a: u32, b: u32) -> u32;
    fn hvc_ea2(a: u32, b: u32) -> u32;
    fn hvc_ffff(a: u32, b: u32) -> u32;
    fn load_word(address: u32, unused: u32) -> u32;
}

fn unknown_numbers_return_enosys_and_do_nothing_else() -> Verdict {
    // Numbers of the table in abi.md 2.0 without a handler, and all beyond it.
    let holes = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 22, 23, 25, 26, 28, 30, 31, 37, 38, 39, 40, 41];
    for number in holes.into_iter().chain(43..=255).chain([0x1000, 0x8000_0011, u32::MAX]) {
        ensure_eq!(call(number, [1, 2, 3, 4, 5]), ENOSYS, number);
    }
    Ok(())
}

fn convention() -> [u32; 14] {
    let mut registers = [0; 14];
    // SAFETY: the probe stores fourteen words and keeps to the calling convention.
    unsafe { convention_probe(address_of(&mut registers), 0) };
    registers
}

fn a_hypercall_changes_no_register_but_r0() -> Verdict {
    let registers = convention();
    ensure_eq!(registers[0], 0x4_0011);
    for (index, &value) in registers.iter().enumerate().take(12).skip(1) {
        ensure_eq!(value, 0x1111_1111 * index as u32, index);
    }
    ensure_eq!(registers[12], 17);
    Ok(())
}

fn a_hypercall_changes_no_condition_flag() -> Verdict {
    ensure_eq!(convention()[13] >> 27, 0x1f);
    Ok(())
}

fn a_thumb_caller_is_served_alike() -> Verdict {
    // SAFETY: changes r0 and r12 only.
    ensure_eq!(unsafe { thumb_version(0, 0) }, 0x4_0011);
    Ok(())
}

fn another_hvc_immediate_is_an_undefined_instruction() -> Verdict {
    for (immediate, probe) in
        [(1, hvc_1 as guests::exception::Probe), (0xea0, hvc_ea0), (0xea2, hvc_ea2), (0xffff, hvc_ffff)]
    {
        ensure!(matches!(catch(probe, 0, 0), Err(fault) if fault.kind == Kind::Undefined), immediate);
    }
    Ok(())
}

/// Reads the feature map through a pointer of the test's choice: 4 bytes in, 8 bytes out.
fn features_at(pointer: u32) -> i32 {
    call(hypercall::XEN_VERSION, [XENVER_GET_FEATURES, pointer, 0, 0, 0])
}

fn null_unmapped_and_device_pointers_return_efault() -> Verdict {
    let devices = [gic::distributor(0), platform::get().cpu_interface];
    for pointer in [0, 4, memory::UNMAPPED, 0xffff_f000, 0xffff_fffc].into_iter().chain(devices) {
        ensure_eq!(features_at(pointer), EFAULT, pointer);
    }
    Ok(())
}

fn a_structure_that_runs_into_an_unmapped_page_returns_efault() -> Verdict {
    let page = memory::map_fixed(Slot::Test, Frame::take().address());
    ensure_eq!(features_at(page + PAGE_SIZE - 8), 0);
    for inside in 1..8 {
        ensure_eq!(features_at(page + PAGE_SIZE - inside), EFAULT, inside);
    }
    memory::unmap_fixed(Slot::Test);
    Ok(())
}

fn output_to_a_read_only_page_returns_efault_and_writes_nothing() -> Verdict {
    let frame = Frame::take();
    let page = memory::map_fixed_read_only(Slot::Test, frame.address());
    ensure_eq!(features_at(page), EFAULT);
    ensure_eq!(frame.read(4), 0);
    memory::unmap_fixed(Slot::Test);
    Ok(())
}

fn a_structure_may_cross_into_another_frame_at_any_byte() -> Verdict {
    // The second virtual page is the first frame, so that the bytes are where only translation finds them.
    let frames = Frame::take_aligned(2);
    let page = memory::map_fixed(Slot::Test, frames.nth(1).address());
    memory::map_fixed(Slot::AfterTest, frames.address());
    for inside in 1..8 {
        let pointer = page + PAGE_SIZE - inside;
        // SAFETY: both pages are mapped and this test's.
        unsafe { (pointer as *mut [u8; 8]).write_unaligned([0; 8]) };
        ensure_eq!(features_at(pointer), 0, inside);
        // SAFETY: as above.
        let submap = unsafe { ((pointer + 4) as *const u32).read_unaligned() };
        ensure_eq!(submap, features(), inside);
    }
    memory::unmap_fixed(Slot::AfterTest);
    memory::unmap_fixed(Slot::Test);
    Ok(())
}

fn console_write_takes_all_and_returns_zero() -> Verdict {
    let mut text = *b"(sixteen letters)\n";
    ensure_eq!(call(hypercall::CONSOLE_IO, [0, text.len() as u32, address_of(&mut text), 0, 0]), 0);
    ensure_eq!(call(hypercall::CONSOLE_IO, [0, 0, address_of(&mut text), 0, 0]), 0);
    Ok(())
}

fn console_read_without_input_returns_zero() -> Verdict {
    let mut buffer = [POISON; 16];
    ensure_eq!(call(hypercall::CONSOLE_IO, [1, 16, address_of(&mut buffer), 0, 0]), 0);
    ensure!(buffer.iter().all(|&byte| byte == POISON));
    Ok(())
}

fn console_refuses_bad_commands_counts_and_pointers() -> Verdict {
    let mut buffer = [0_u8; 16];
    let pointer = address_of(&mut buffer);
    ensure_eq!(call(hypercall::CONSOLE_IO, [2, 1, pointer, 0, 0]), ENOSYS);
    ensure_eq!(call(hypercall::CONSOLE_IO, [u32::MAX, 1, pointer, 0, 0]), ENOSYS);
    ensure_eq!(call(hypercall::CONSOLE_IO, [0, 16, memory::UNMAPPED, 0, 0]), EFAULT);
    ensure_eq!(call(hypercall::CONSOLE_IO, [1, 0x8000_0000, pointer, 0, 0]), E2BIG);
    Ok(())
}

/// `struct multicall_entry`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Multicall {
    number: u64,
    result: i64,
    arguments: [u64; 6],
}

/// An entry's result before the call.
const NO_RESULT: i64 = 0x5a5a_5a5a;

fn entry(number: u32, first: u32) -> Multicall {
    Multicall { number: u64::from(number), result: NO_RESULT, arguments: [u64::from(first), 0, 0, 0, 0, 0] }
}

fn multicall(entries: &mut [Multicall]) -> i32 {
    call(hypercall::MULTICALL, [address_of(entries), entries.len() as u32, 0, 0, 0])
}

fn multicall_runs_all_entries_and_stores_each_result() -> Verdict {
    let mut entries = [entry(hypercall::XEN_VERSION, 0), entry(41, 0), entry(200, 0), entry(hypercall::XEN_VERSION, 7)];
    ensure_eq!(multicall(&mut entries), 0);
    ensure_eq!(entries[0].result, 0x4_0011);
    ensure_eq!(entries[1].result, ENOSYS);
    ensure_eq!(entries[2].result, ENOSYS);
    ensure_eq!(entries[3].result, 4096);
    Ok(())
}

fn multicall_stores_nothing_but_results() -> Verdict {
    let before = Multicall { arguments: [0, 0, 3, 4, 5, 6], ..entry(hypercall::XEN_VERSION, 0) };
    let mut entries = [before];
    ensure_eq!(multicall(&mut entries), 0);
    ensure!(entries[0] == Multicall { result: 0x4_0011, ..before });
    Ok(())
}

fn multicall_of_nothing_succeeds() -> Verdict {
    ensure_eq!(multicall(&mut []), 0);
    Ok(())
}

fn multicall_refuses_to_nest() -> Verdict {
    let mut inner = [entry(hypercall::XEN_VERSION, 0)];
    let mut nested = entry(hypercall::MULTICALL, address_of(&mut inner));
    nested.arguments[1] = 1;
    let mut outer = [nested];
    ensure_eq!(multicall(&mut outer), 0);
    ensure_eq!(outer[0].result, EINVAL);
    ensure_eq!(inner[0].result, 0x5a5a_5a5a);
    Ok(())
}

fn multicall_with_an_unreadable_list_returns_efault() -> Verdict {
    ensure_eq!(call(hypercall::MULTICALL, [memory::UNMAPPED, 1, 0, 0, 0]), EFAULT);
    // The entry's second half is unmapped.
    let page = memory::map_fixed(Slot::Test, Frame::take().address());
    ensure_eq!(call(hypercall::MULTICALL, [page + PAGE_SIZE - 32, 1, 0, 0, 0]), EFAULT);
    memory::unmap_fixed(Slot::Test);
    Ok(())
}

/// A list of 1024 entries in frames of its own, whose result words an interrupt's hook can look at.
static LONG_LIST: AtomicU32 = AtomicU32::new(0);
/// How many of them were done when the interrupt was taken.
static DONE_BEFORE: AtomicU32 = AtomicU32::new(0);
const LONG: u32 = 1024;

/// The result word of an entry: before its call, what `entry` puts there.
fn long_result(index: u32) -> u32 {
    let at = index * size_of::<Multicall>() as u32 + 8;
    Frame::at(LONG_LIST.load(Ordering::SeqCst)).nth(at / PAGE_SIZE).read(at % PAGE_SIZE)
}

fn a_long_multicall_lets_interrupts_in() -> Verdict {
    let frames = Frame::take_aligned(LONG * size_of::<Multicall>() as u32 / PAGE_SIZE);
    LONG_LIST.store(frames.address(), Ordering::SeqCst);
    // SAFETY: frames of this test alone, zeroed, of that many entries.
    let list = unsafe { core::slice::from_raw_parts_mut(frames.pointer::<Multicall>(), LONG as usize) };
    gic::enable(VIRTUAL_TIMER);
    // The first round takes the time of a whole list; then the timer fires in the middle, or a little off it.
    let mut time = 0;
    for round in 0..20 {
        list.fill(entry(hypercall::XEN_VERSION, 0));
        DONE_BEFORE.store(0, Ordering::SeqCst);
        interrupt::reset();
        interrupt::set_hook(|_| {
            let done = (0..LONG).take_while(|&index| long_result(index) != NO_RESULT as u32).count();
            DONE_BEFORE.store(done as u32, Ordering::SeqCst);
        });
        let start = clock::now();
        if round > 0 {
            cp15::write_cntv_cval(start + time / 2);
            cp15::write_cntv_ctl(interrupt::TIMER_ENABLED);
        }
        cp15::enable_interrupts();
        let result = multicall(list);
        cp15::disable_interrupts();
        cp15::write_cntv_ctl(0);
        time = clock::now() - start;
        ensure_eq!(result, 0, round);
        ensure!((0..LONG).all(|index| long_result(index) == 0x4_0011), round);
        if (1..LONG).contains(&DONE_BEFORE.load(Ordering::SeqCst)) {
            break;
        }
    }
    let done = DONE_BEFORE.load(Ordering::SeqCst);
    ensure!((1..LONG).contains(&done), done);
    Ok(())
}

fn vm_assist_knows_the_runstate_flag_only() -> Verdict {
    const ENABLE: u32 = 0;
    const DISABLE: u32 = 1;
    const RUNSTATE_UPDATE_FLAG: u32 = 5;
    for command in [ENABLE, DISABLE] {
        for kind in [0, 1, 2, 3, 4, 6, 31, 32, u32::MAX] {
            ensure_eq!(call(hypercall::VM_ASSIST, [command, kind, 0, 0, 0]), EINVAL, kind);
        }
        ensure_eq!(call(hypercall::VM_ASSIST, [command, RUNSTATE_UPDATE_FLAG, 0, 0, 0]), 0, command);
    }
    ensure_eq!(call(hypercall::VM_ASSIST, [2, RUNSTATE_UPDATE_FLAG, 0, 0, 0]), ENOSYS);
    ensure_eq!(call(hypercall::VM_ASSIST, [2, 0, 0, 0, 0]), EINVAL);
    Ok(())
}

fn physdev_operations_return_enosys() -> Verdict {
    let mut argument = [0_u64; 8];
    for operation in 0..=40 {
        ensure_eq!(call_with(hypercall::PHYSDEV_OP, operation, &mut argument), ENOSYS, operation);
    }
    Ok(())
}

fn xsm_operations_return_enosys() -> Verdict {
    let mut argument = [0_u64; 16];
    ensure_eq!(call(27, [address_of(&mut argument), 0, 0, 0, 0]), ENOSYS);
    Ok(())
}

fn control_calls_check_their_interface_version() -> Verdict {
    const SYSCTL: u32 = 35;
    const DOMCTL: u32 = 36;
    const CURRENT_VERSION: u32 = 0x15;
    for number in [SYSCTL, DOMCTL] {
        for version in [0, CURRENT_VERSION - 1, CURRENT_VERSION + 1] {
            let mut argument = [0_u32; 40];
            argument[..2].copy_from_slice(&[5, version]);
            ensure_eq!(call(number, [address_of(&mut argument), 0, 0, 0, 0]), EACCES, version);
        }
        ensure_eq!(call(number, [memory::UNMAPPED, 0, 0, 0, 0]), EFAULT, number);
    }
    Ok(())
}

const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
const HVM_PARAM_STORE_PFN: u32 = 1;
const HVM_PARAM_STORE_EVTCHN: u32 = 2;
const HVM_PARAM_MONITOR_RING_PFN: u32 = 28;

fn hvm_parameters_of_oneself_are_readable() -> Verdict {
    // Type 2 (PPI) in [63:56], low level in [15:8], the PPI itself in [7:0]: what the device tree says.
    let expected = 2 << 56 | 0x200 | u64::from(platform::get().event_interrupt);
    ensure_eq!(console::hvm_parameter(HVM_PARAM_CALLBACK_IRQ).unwrap_or(0), expected);
    for index in [HVM_PARAM_STORE_PFN, HVM_PARAM_STORE_EVTCHN, PARAM_CONSOLE_PFN, PARAM_CONSOLE_EVTCHN] {
        // dom0 has neither store nor console page.
        let value = console::hvm_parameter(index);
        ensure!(if is_dom0() { value == Ok(0) } else { value.is_ok_and(|value| value != 0) }, index);
    }
    Ok(())
}

fn hvm_parameters_of_oneself_are_not_writable() -> Verdict {
    for index in [
        HVM_PARAM_CALLBACK_IRQ,
        HVM_PARAM_STORE_PFN,
        HVM_PARAM_STORE_EVTCHN,
        PARAM_CONSOLE_PFN,
        PARAM_CONSOLE_EVTCHN,
        HVM_PARAM_MONITOR_RING_PFN,
    ] {
        let mut argument = HvmParameter { domid: DOMID_SELF, pad: 0, index, value: 1 };
        ensure_eq!(call_with(hypercall::HVM_OP, abi::HVMOP_SET_PARAM, &mut argument), EPERM, index);
    }
    ensure_eq!(console::hvm_parameter(HVM_PARAM_MONITOR_RING_PFN).err().unwrap_or(0), EPERM);
    Ok(())
}

fn unknown_hvm_parameters_return_einval() -> Verdict {
    for index in [3, 4, 16, 27, 30, 37, 64, u32::MAX] {
        ensure_eq!(console::hvm_parameter(index).err().unwrap_or(0), EINVAL, index);
        let mut argument = HvmParameter { domid: DOMID_SELF, pad: 0, index, value: 1 };
        ensure_eq!(call_with(hypercall::HVM_OP, abi::HVMOP_SET_PARAM, &mut argument), EINVAL, index);
    }
    for index in [HVM_PARAM_STORE_PFN, u32::MAX] {
        let mut argument = HvmParameter { domid: DOMID_ABSENT, pad: 0, index, value: 0 };
        ensure_eq!(call_with(hypercall::HVM_OP, abi::HVMOP_GET_PARAM, &mut argument), ESRCH, index);
    }
    Ok(())
}

fn unknown_hvm_operations_return_enosys() -> Verdict {
    let mut argument = [0_u64; 8];
    for operation in [2, 3, 5, 9, 15, 25, 100] {
        ensure_eq!(call_with(hypercall::HVM_OP, operation, &mut argument), ENOSYS, operation);
    }
    Ok(())
}

/// `struct xen_platform_op` with its settime64 body.
#[repr(C)]
struct PlatformOp {
    command: u32,
    version: u32,
    seconds: u64,
    nanoseconds: u32,
    zero: u32,
    system_time: u64,
    rest: [u64; 13],
}

impl PlatformOp {
    const VERSION: u32 = 0x0300_0001;
    const SETTIME64: u32 = 62;

    fn settime(seconds: u64, nanoseconds: u32) -> Self {
        PlatformOp {
            command: Self::SETTIME64,
            version: Self::VERSION,
            seconds,
            nanoseconds,
            zero: 0,
            system_time: 0,
            rest: [0; 13],
        }
    }

    fn call(mut self) -> i32 {
        call(hypercall::PLATFORM_OP, [address_of(&mut self), 0, 0, 0, 0])
    }
}

fn platform_op_checks_version_and_command() -> Verdict {
    ensure_eq!(PlatformOp { version: 0, ..PlatformOp::settime(1, 0) }.call(), EACCES);
    ensure_eq!(PlatformOp { zero: 1, ..PlatformOp::settime(1, 0) }.call(), EINVAL);
    for command in [0, 1, 55, 61, 63, u32::MAX] {
        ensure_eq!(PlatformOp { command, ..PlatformOp::settime(1, 0) }.call(), ENOSYS, command);
    }
    ensure_eq!(call(hypercall::PLATFORM_OP, [memory::UNMAPPED, 0, 0, 0, 0]), EFAULT);
    Ok(())
}

fn settime_updates_the_shared_wallclock() -> Verdict {
    const WC_VERSION: u32 = 1072;
    const WC_SEC: u32 = 1076;
    const WC_NSEC: u32 = 1080;
    const WC_SEC_HI: u32 = 1084;
    let shared = Frame::take();
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, shared.gfn()), 0);
    let before = shared.read(WC_VERSION);
    ensure_eq!(PlatformOp::settime(0x2_0000_0003, 77).call(), 0);
    ensure!(shared.read(WC_VERSION) != before && shared.read(WC_VERSION).is_multiple_of(2));
    ensure_eq!(shared.read(WC_SEC), 3);
    ensure_eq!(shared.read(WC_SEC_HI), 2);
    ensure_eq!(shared.read(WC_NSEC), 77);
    ensure_eq!(remove_from_physmap(shared.gfn()), 0);
    Ok(())
}

fn yield_returns_zero() -> Verdict {
    ensure_eq!(call(hypercall::SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]), 0);
    Ok(())
}

fn poll_refuses_more_than_128_ports() -> Verdict {
    for count in [129, 0x1_0000, u32::MAX] {
        let mut argument = Poll { count, ..Poll::default() };
        ensure_eq!(call_with(hypercall::SCHED_OP, abi::SCHEDOP_POLL, &mut argument), EINVAL, count);
    }
    ensure_eq!(call(hypercall::SCHED_OP, [abi::SCHEDOP_POLL, memory::UNMAPPED, 0, 0, 0]), EFAULT);
    Ok(())
}

fn poll_with_a_deadline_in_the_past_returns_at_once() -> Verdict {
    let mut argument = Poll { timeout: 1, ..Poll::default() };
    let start = clock::now();
    ensure_eq!(call_with(hypercall::SCHED_OP, abi::SCHEDOP_POLL, &mut argument), 0);
    ensure!(clock::now() - start < clock::ticks(1_000_000));
    Ok(())
}

fn shutdown_of_an_absent_domain_returns_esrch() -> Verdict {
    // struct sched_remote_shutdown: domid, reason.
    for reason in [0, 99] {
        let mut argument = [u32::from(DOMID_ABSENT), reason];
        ensure_eq!(call_with(hypercall::SCHED_OP, abi::SCHEDOP_REMOTE_SHUTDOWN, &mut argument), ESRCH, reason);
    }
    Ok(())
}

fn watchdog(id: u32, timeout_s: u32) -> i32 {
    call_with(hypercall::SCHED_OP, abi::SCHEDOP_WATCHDOG, &mut [id, timeout_s])
}

fn watchdogs_are_handed_out_twice_and_can_be_stopped() -> Verdict {
    const FAR_FUTURE_S: u32 = 3600;
    ensure_eq!(watchdog(0, FAR_FUTURE_S), 1);
    ensure_eq!(watchdog(0, FAR_FUTURE_S), 2);
    ensure!(watchdog(0, FAR_FUTURE_S) < 0);
    ensure_eq!(watchdog(3, FAR_FUTURE_S), EINVAL);
    ensure_eq!(watchdog(1, FAR_FUTURE_S), 0);
    ensure_eq!(watchdog(1, 0), 0);
    ensure_eq!(watchdog(2, 0), 0);
    ensure_eq!(watchdog(1, FAR_FUTURE_S), EINVAL);
    Ok(())
}

fn unknown_scheduler_commands_return_enosys() -> Verdict {
    let mut argument = [0_u64; 4];
    for command in [8, 9, 64, u32::MAX] {
        ensure_eq!(call_with(hypercall::SCHED_OP, command, &mut argument), ENOSYS, command);
    }
    Ok(())
}

fn vcpu_op(operation: u32, vcpu: u32, argument: u32) -> i32 {
    call(VCPU_OP, [operation, vcpu, argument, 0, 0])
}

fn vcpu_op_knows_registration_only() -> Verdict {
    let mut argument = [0_u64; 8];
    for operation in [0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 64] {
        ensure_eq!(vcpu_op(operation, 0, address_of(&mut argument)), EINVAL, operation);
    }
    Ok(())
}

fn vcpu_op_on_an_absent_vcpu_returns_enoent() -> Verdict {
    for vcpu in [platform::get().cpus, 128, u32::MAX] {
        ensure_eq!(event::register_vcpu_info(vcpu, Frame::take().gfn(), 0), ENOENT, vcpu);
    }
    Ok(())
}

fn runstate_is_running_and_its_time_adds_up() -> Verdict {
    const RUNNING: u32 = 0;
    let area = Frame::take();
    let mut pointer = u64::from(area.address());
    ensure_eq!(vcpu_op(abi::VCPUOP_REGISTER_RUNSTATE, 0, address_of(&mut pointer)), 0);
    ensure_eq!(area.read(0), RUNNING);
    let long = |offset| u64::from(area.read(offset + 4)) << 32 | u64::from(area.read(offset));
    let since_entry = long(8);
    // time[4] covers the life of the vCPU up to the last change of state.
    let sum: u64 = [16, 24, 32, 40].into_iter().map(long).sum();
    ensure!(since_entry > 0);
    ensure!(sum <= since_entry, sum);
    pointer = 0;
    vcpu_op(abi::VCPUOP_REGISTER_RUNSTATE, 0, address_of(&mut pointer));
    Ok(())
}

fn vcpu_info_must_be_aligned_and_within_its_page() -> Verdict {
    let frame = Frame::take();
    const SIZE: u32 = 48;
    for offset in [1, 4, PAGE_SIZE - SIZE + 8, PAGE_SIZE, u32::MAX] {
        ensure_eq!(event::register_vcpu_info(0, frame.gfn(), offset), ENXIO, offset);
    }
    ensure_eq!(event::register_vcpu_info(0, 0xf_0000, 0), EINVAL);
    ensure_eq!(event::register_vcpu_info(0, 0xf_0000, 4), ENXIO);
    Ok(())
}

fn vcpu_info_can_be_registered_once_and_raises_an_upcall() -> Verdict {
    let frame = Frame::take();
    let interrupt = platform::get().event_interrupt;
    gic::enable(interrupt);
    interrupt::reset();
    ensure_eq!(event::register_vcpu_info(0, frame.gfn(), PAGE_SIZE - 48), 0);
    ensure!(event::VcpuInfo(frame.address() + PAGE_SIZE - 48).upcall_pending());
    ensure!(interrupt::comes(interrupt, 1));
    ensure_eq!(event::register_vcpu_info(0, frame.gfn(), 0), EINVAL);
    Ok(())
}

//! Hypercalls: the calling convention, the rules for guest pointers, and every call whose result a guest can check by
//! itself (abi.md sections 1 and 2). Event channels and grants have guests of their own.
#![no_std]
#![no_main]

use core::arch::global_asm;

use guests::abi::{
    self, AddToPhysmap, AddToPhysmapBatch, DOMID_ABSENT, DOMID_SELF, HvmParameter, Poll, Reservation, add_to_physmap,
    remove_from_physmap, reservation,
};
use guests::exception::{Kind, catch};
use guests::harness::Verdict;
use guests::hypercall::{self, MEMORY_OP, VCPU_OP, address_of, call, call_with};
use guests::memory::{self, Frame, PAGE_SIZE, Slot};
use guests::status::{E2BIG, EACCES, EBUSY, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO, EOPNOTSUPP, EPERM, ESRCH};
use guests::{clock, console, ensure, ensure_eq, event, gic, platform, suite};

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

    version_needs_no_pointer,
    extraversion_fills_exactly_sixteen_bytes,
    compile_info_fills_exactly_144_bytes,
    capabilities_name_the_armv7_guest_type,
    changeset_fills_exactly_64_bytes,
    platform_parameters_are_one_64_bit_word,
    features_of_submap_0_are_those_of_the_domain,
    features_of_another_submap_are_refused,
    pagesize_wants_a_null_pointer,
    guest_handle_fills_exactly_sixteen_bytes,
    commandline_is_a_terminated_string,
    build_id_tells_its_size_and_then_itself,
    other_version_commands_return_enosys,

    console_write_takes_all_and_returns_zero,
    console_read_without_input_returns_zero,
    console_refuses_bad_commands_counts_and_pointers,

    reservation_counts_agree_with_the_device_tree,
    maximum_gpfn_covers_ram,
    maximum_ram_page_covers_ram,
    reservation_counts_of_an_absent_domain_return_esrch,
    decreased_pages_are_gone_and_populated_pages_come_back,
    decrease_stops_at_a_hole_and_tells_how_far_it_got,
    decrease_of_a_two_megabyte_extent_is_one_extent,
    populate_beyond_the_order_limit_does_nothing,
    reservation_with_a_bad_list_does_nothing,
    reservation_without_extents_does_nothing,
    shared_info_can_be_in_one_place_only,
    shared_info_can_be_moved_by_removing_it_first,
    shared_info_has_one_page,
    a_grant_frame_can_be_mapped_and_removed,
    grant_frames_beyond_the_limit_are_refused,
    spaces_of_other_architectures_return_enosys,
    add_to_physmap_of_an_absent_domain_returns_esrch,
    add_to_physmap_batch_reports_each_page,
    foreign_pages_of_oneself_are_refused,
    foreign_pages_of_an_absent_domain_return_esrch,
    remove_of_a_hole_returns_enoent,
    memory_operations_of_other_architectures_return_enosys,
    memory_exchange_is_not_supported_for_translated_domains,
    claim_pages_wants_a_plain_request,
    acquire_resource_serves_other_domains_only,

    multicall_runs_all_entries_and_stores_each_result,
    multicall_stores_nothing_but_results,
    multicall_of_nothing_succeeds,
    multicall_refuses_to_nest,
    multicall_with_an_unreadable_list_returns_efault,

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

const XENVER_GET_FEATURES: u32 = 6;

/// Calls xen_version into a poisoned buffer; returns the result and how many bytes were written before the poison.
fn version_into<const SIZE: usize>(command: u32, buffer: &mut [u8; SIZE]) -> (i32, usize) {
    buffer.fill(POISON);
    let result = call(hypercall::XEN_VERSION, [command, address_of(buffer), 0, 0, 0]);
    (result, buffer.iter().rposition(|&byte| byte != POISON).map_or(0, |last| last + 1))
}

/// Whether the field is text, a terminator, and nothing but zeros after it.
fn is_padded_text(field: &[u8]) -> bool {
    let length = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at(length);
    !padding.is_empty() && text.iter().all(|byte| (b' '..=b'~').contains(byte)) && padding.iter().all(|&byte| byte == 0)
}

fn version_needs_no_pointer() -> Verdict {
    ensure_eq!(call(hypercall::XEN_VERSION, [0, 0, 0, 0, 0]), 4 << 16 | 17);
    ensure_eq!(call(hypercall::XEN_VERSION, [0, memory::UNMAPPED, 0, 0, 0]), 4 << 16 | 17);
    Ok(())
}

fn extraversion_fills_exactly_sixteen_bytes() -> Verdict {
    let mut buffer = [0; 32];
    let (result, written) = version_into(1, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 16);
    ensure!(buffer[0] == b'.' && is_padded_text(&buffer[..16]));
    Ok(())
}

fn compile_info_fills_exactly_144_bytes() -> Verdict {
    let mut buffer = [0; 160];
    let (result, written) = version_into(2, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 144);
    // compiler, compile_by, compile_domain, compile_date.
    for (start, end) in [(0, 64), (64, 80), (80, 112), (112, 144)] {
        ensure!(is_padded_text(&buffer[start..end]), start);
    }
    Ok(())
}

fn capabilities_name_the_armv7_guest_type() -> Verdict {
    let mut buffer = [0; 1040];
    let (result, written) = version_into(3, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 1024);
    ensure!(buffer.starts_with(b"xen-3.0-armv7l \0") && is_padded_text(&buffer[..1024]));
    Ok(())
}

fn changeset_fills_exactly_64_bytes() -> Verdict {
    let mut buffer = [0; 80];
    let (result, written) = version_into(4, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 64);
    ensure!(is_padded_text(&buffer[..64]));
    Ok(())
}

fn platform_parameters_are_one_64_bit_word() -> Verdict {
    let mut buffer = [0; 16];
    let (result, written) = version_into(5, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 8);
    ensure_eq!(
        u64::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3], buffer[4], buffer[5], buffer[6], buffer[7]]),
        0x20_0000
    );
    Ok(())
}

/// The feature map of submap 0.
fn features() -> u32 {
    let mut info = [0_u32, 0];
    call_with(hypercall::XEN_VERSION, XENVER_GET_FEATURES, &mut info);
    info[1]
}

const FEATURE_DOM0: u32 = 1 << 11;
const FEATURES_DOM0: u32 = 0x2_6805;
const FEATURES_DOMU: u32 = 0x1_6005;

fn is_dom0() -> bool {
    features() & FEATURE_DOM0 != 0
}

fn features_of_submap_0_are_those_of_the_domain() -> Verdict {
    ensure_eq!(features(), if is_dom0() { FEATURES_DOM0 } else { FEATURES_DOMU });
    Ok(())
}

fn features_of_another_submap_are_refused() -> Verdict {
    for submap in [1, 2, u32::MAX] {
        let mut info = [submap, 0xdead_beef];
        ensure_eq!(call_with(hypercall::XEN_VERSION, XENVER_GET_FEATURES, &mut info), EINVAL, submap);
    }
    Ok(())
}

fn pagesize_wants_a_null_pointer() -> Verdict {
    ensure_eq!(call(hypercall::XEN_VERSION, [7, 0, 0, 0, 0]), 4096);
    ensure_eq!(call(hypercall::XEN_VERSION, [7, 4, 0, 0, 0]), EINVAL);
    Ok(())
}

fn guest_handle_fills_exactly_sixteen_bytes() -> Verdict {
    // A handle byte may equal the poison: check the bytes behind it.
    let mut buffer = [POISON; 24];
    ensure_eq!(call_with(hypercall::XEN_VERSION, 8, &mut buffer), 0);
    ensure!(buffer[16..].iter().all(|&byte| byte == POISON));
    ensure!(buffer[..16].iter().any(|&byte| byte != POISON));
    Ok(())
}

fn commandline_is_a_terminated_string() -> Verdict {
    let mut buffer = [0; 1040];
    let (result, written) = version_into(9, &mut buffer);
    ensure_eq!(result, 0);
    ensure!(written <= 1024, written);
    ensure!(buffer[..1024].contains(&0));
    Ok(())
}

fn build_id_tells_its_size_and_then_itself() -> Verdict {
    let size = call(hypercall::XEN_VERSION, [10, 0, 0, 0, 0]);
    if !is_dom0() {
        ensure_eq!(size, EPERM);
        return Ok(());
    }
    // A SHA-1, as ld's --build-id makes it.
    ensure_eq!(size, 20);
    let mut buffer = [POISON; 32];
    buffer[..4].copy_from_slice(&20_u32.to_le_bytes());
    ensure_eq!(call_with(hypercall::XEN_VERSION, 10, &mut buffer), 20);
    ensure!(buffer[4..24].iter().any(|&byte| byte != POISON));
    ensure!(buffer[24..].iter().all(|&byte| byte == POISON));
    Ok(())
}

fn other_version_commands_return_enosys() -> Verdict {
    let mut buffer = [POISON; 1024];
    for command in (11..64).chain([u32::MAX]) {
        ensure_eq!(call_with(hypercall::XEN_VERSION, command, &mut buffer), ENOSYS, command);
    }
    ensure!(buffer.iter().all(|&byte| byte == POISON));
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

fn count_of(operation: u32, domid: u16) -> i32 {
    let mut argument = domid;
    call_with(MEMORY_OP, operation, &mut argument)
}

fn ram_pages() -> u32 {
    platform::get().ram_size / PAGE_SIZE
}

fn reservation_counts_agree_with_the_device_tree() -> Verdict {
    let current = count_of(abi::MEM_CURRENT_RESERVATION, DOMID_SELF) as u32;
    ensure!(current >= ram_pages(), current);
    ensure!(count_of(abi::MEM_MAXIMUM_RESERVATION, DOMID_SELF) as u32 >= current, current);
    Ok(())
}

fn maximum_gpfn_covers_ram() -> Verdict {
    let maximum = count_of(abi::MEM_MAXIMUM_GPFN, DOMID_SELF) as u32;
    ensure!(maximum >= (platform::get().ram_base >> 12) + ram_pages() - 1, maximum);
    Ok(())
}

fn maximum_ram_page_covers_ram() -> Verdict {
    let maximum = call(MEMORY_OP, [abi::MEM_MAXIMUM_RAM_PAGE, 0, 0, 0, 0]) as u32;
    ensure!(maximum >= (platform::get().ram_base >> 12) + ram_pages(), maximum);
    Ok(())
}

fn reservation_counts_of_an_absent_domain_return_esrch() -> Verdict {
    for operation in [abi::MEM_CURRENT_RESERVATION, abi::MEM_MAXIMUM_RESERVATION, abi::MEM_MAXIMUM_GPFN] {
        ensure_eq!(count_of(operation, DOMID_ABSENT), ESRCH, operation);
    }
    Ok(())
}

fn is_accessible(address: u32) -> bool {
    catch(load_word, address, 0).is_ok()
}

fn decreased_pages_are_gone_and_populated_pages_come_back() -> Verdict {
    let frames = Frame::take_aligned(4);
    let mut list = [0, 1, 2, 3].map(|index| frames.nth(index).gfn());
    ensure_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut list, 0), 4);
    for index in 0..4 {
        ensure!(!is_accessible(frames.nth(index).address()), index);
    }
    ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut list, 0), 4);
    for index in 0..4 {
        ensure!(is_accessible(frames.nth(index).address()), index);
        frames.nth(index).write(0, index);
    }
    for index in 0..4 {
        ensure_eq!(frames.nth(index).read(0), index);
    }
    Ok(())
}

fn decrease_stops_at_a_hole_and_tells_how_far_it_got() -> Verdict {
    let frames = Frame::take_aligned(2);
    let hole = 0xf_0000_u64;
    let mut list = [frames.gfn(), hole, frames.nth(1).gfn()];
    ensure_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut list, 0), 1);
    ensure!(!is_accessible(frames.address()));
    ensure!(is_accessible(frames.nth(1).address()));
    ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut list[..1], 0), 1);
    Ok(())
}

fn decrease_of_a_two_megabyte_extent_is_one_extent() -> Verdict {
    let frames = Frame::take_aligned(512);
    let mut list = [frames.gfn()];
    ensure_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut list, 9), 1);
    ensure!(!is_accessible(frames.address()) && !is_accessible(frames.nth(511).address()));
    ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut list, 9), 1);
    ensure!(is_accessible(frames.address()) && is_accessible(frames.nth(511).address()));
    Ok(())
}

fn populate_beyond_the_order_limit_does_nothing() -> Verdict {
    // A plain domain may ask for order 9, the control domain for all that the allocator has, order 18.
    let frame = Frame::take();
    for order in [if is_dom0() { 19 } else { 10 }, 32, u32::MAX] {
        ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut [frame.gfn()], order), 0, order);
    }
    Ok(())
}

fn reservation_with_a_bad_list_does_nothing() -> Verdict {
    for operation in [abi::MEM_DECREASE_RESERVATION, abi::MEM_POPULATE_PHYSMAP] {
        let mut argument =
            Reservation { extents: u64::from(memory::UNMAPPED), count: 1, domid: DOMID_SELF, ..Reservation::default() };
        ensure_eq!(call_with(MEMORY_OP, operation, &mut argument), 0, operation);
        ensure_eq!(call(MEMORY_OP, [operation, memory::UNMAPPED, 0, 0, 0]), 0, operation);
        argument.domid = DOMID_ABSENT;
        ensure_eq!(call_with(MEMORY_OP, operation, &mut argument), 0, operation);
    }
    Ok(())
}

fn reservation_without_extents_does_nothing() -> Verdict {
    for operation in [abi::MEM_INCREASE_RESERVATION, abi::MEM_DECREASE_RESERVATION, abi::MEM_POPULATE_PHYSMAP] {
        ensure_eq!(reservation(operation, &mut [], 0), 0, operation);
    }
    Ok(())
}

fn shared_info_can_be_in_one_place_only() -> Verdict {
    let (first, second) = (Frame::take(), Frame::take());
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, first.gfn()), 0);
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, second.gfn()), EBUSY);
    ensure_eq!(remove_from_physmap(first.gfn()), 0);
    Ok(())
}

fn shared_info_can_be_moved_by_removing_it_first() -> Verdict {
    let (first, second) = (Frame::take(), Frame::take());
    const UNUSED_TAIL: u32 = 4000;
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, first.gfn()), 0);
    first.write(UNUSED_TAIL, 0x1234_5678);
    ensure_eq!(remove_from_physmap(first.gfn()), 0);
    ensure!(!is_accessible(first.address()));
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, second.gfn()), 0);
    ensure_eq!(second.read(UNUSED_TAIL), 0x1234_5678);
    ensure_eq!(remove_from_physmap(second.gfn()), 0);
    Ok(())
}

fn shared_info_has_one_page() -> Verdict {
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 1, Frame::take().gfn()), EINVAL);
    Ok(())
}

fn a_grant_frame_can_be_mapped_and_removed() -> Verdict {
    let frame = Frame::take();
    frame.write(0, 0xffff_ffff);
    ensure_eq!(add_to_physmap(abi::SPACE_GRANT_TABLE, 0, frame.gfn()), 0);
    ensure_eq!(frame.read(0), 0);
    ensure_eq!(remove_from_physmap(frame.gfn()), 0);
    ensure!(!is_accessible(frame.address()));
    Ok(())
}

fn grant_frames_beyond_the_limit_are_refused() -> Verdict {
    for index in [64, 65, 0x7fff_ffff] {
        ensure!(add_to_physmap(abi::SPACE_GRANT_TABLE, index, Frame::take().gfn()) < 0, index);
    }
    Ok(())
}

fn spaces_of_other_architectures_return_enosys() -> Verdict {
    for space in [abi::SPACE_GMFN, abi::SPACE_GMFN_RANGE, abi::SPACE_FOREIGN, 6, 0xffff] {
        let mut argument = AddToPhysmap { domid: DOMID_SELF, size: 1, space, index: 0, gfn: Frame::take().gfn() };
        ensure_eq!(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, &mut argument), ENOSYS, space);
    }
    Ok(())
}

fn add_to_physmap_of_an_absent_domain_returns_esrch() -> Verdict {
    let mut argument = AddToPhysmap { domid: DOMID_ABSENT, gfn: Frame::take().gfn(), ..AddToPhysmap::default() };
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, &mut argument), ESRCH);
    Ok(())
}

/// One batch; `errors` is poisoned before.
fn batch(space: u32, foreign: u16, indices: &mut [u64], gfns: &mut [u64], errors: &mut [i32]) -> i32 {
    errors.fill(0x5a5a_5a5a);
    let mut argument = AddToPhysmapBatch {
        domid: DOMID_SELF,
        space: space as u16,
        size: indices.len() as u16,
        foreign,
        indices: u64::from(address_of(indices)),
        gfns: u64::from(address_of(gfns)),
        errors: u64::from(address_of(errors)),
    };
    call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, &mut argument)
}

fn add_to_physmap_batch_reports_each_page() -> Verdict {
    let (good, bad) = (Frame::take(), Frame::take());
    let mut errors = [0; 3];
    ensure_eq!(batch(abi::SPACE_GRANT_TABLE, 0, &mut [0, 64], &mut [good.gfn(), bad.gfn()], &mut errors[..2]), 0);
    ensure_eq!(errors[0], 0);
    ensure!(errors[1] < 0, errors[1]);
    ensure_eq!(errors[2], 0);
    ensure_eq!(remove_from_physmap(good.gfn()), 0);
    ensure_eq!(batch(abi::SPACE_GMFN_RANGE, 0, &mut [0], &mut [good.gfn()], &mut errors[..1]), EOPNOTSUPP);
    ensure_eq!(errors[0], 0x5a5a_5a5a);
    ensure_eq!(call(MEMORY_OP, [abi::MEM_ADD_TO_PHYSMAP_BATCH, memory::UNMAPPED, 0, 0, 0]), EFAULT);
    Ok(())
}

fn foreign_pages_of_oneself_are_refused() -> Verdict {
    let (source, target) = (Frame::take(), Frame::take());
    let mut errors = [0];
    let result = batch(abi::SPACE_FOREIGN, DOMID_SELF, &mut [source.gfn()], &mut [target.gfn()], &mut errors);
    ensure!(result == EINVAL || errors[0] == EINVAL, result);
    Ok(())
}

fn foreign_pages_of_an_absent_domain_return_esrch() -> Verdict {
    let (source, target) = (Frame::take(), Frame::take());
    let mut errors = [0];
    let result = batch(abi::SPACE_FOREIGN, DOMID_ABSENT, &mut [source.gfn()], &mut [target.gfn()], &mut errors);
    ensure!(result == ESRCH || errors[0] == ESRCH, result);
    Ok(())
}

fn remove_of_a_hole_returns_enoent() -> Verdict {
    ensure_eq!(remove_from_physmap(0xf_0000), ENOENT);
    Ok(())
}

fn memory_operations_of_other_architectures_return_enosys() -> Verdict {
    let mut argument = [0_u64; 8];
    for operation in [5, 9, 10, 12, 13, 16, 17, 22, 25, 29, 40, 63] {
        ensure_eq!(call_with(MEMORY_OP, operation, &mut argument), ENOSYS, operation);
    }
    Ok(())
}

fn memory_exchange_is_not_supported_for_translated_domains() -> Verdict {
    // struct xen_memory_exchange: in, out, nr_exchanged.
    let mut list = [Frame::take().gfn()];
    let side = Reservation {
        extents: u64::from(address_of(&mut list)),
        count: 1,
        domid: DOMID_SELF,
        ..Reservation::default()
    };
    let mut argument = (side, side, 0_u64);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_EXCHANGE, &mut argument), EOPNOTSUPP);
    Ok(())
}

fn claim_pages_wants_a_plain_request() -> Verdict {
    let cancel = Reservation { domid: DOMID_SELF, ..Reservation::default() };
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_CLAIM_PAGES, &mut Reservation { order: 1, ..cancel }), EINVAL);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_CLAIM_PAGES, &mut Reservation { flags: 1, ..cancel }), EINVAL);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_CLAIM_PAGES, &mut Reservation { extents: 8, ..cancel }), EINVAL);
    Ok(())
}

/// `struct xen_mem_acquire_resource`.
#[repr(C)]
struct AcquireResource {
    domid: u16,
    kind: u16,
    id: u32,
    count: u32,
    pad: u32,
    first: u64,
    list: u64,
}

fn acquire_resource_serves_other_domains_only() -> Verdict {
    const GRANT_TABLE: u16 = 1;
    let request = |domid, pad| AcquireResource { domid, kind: GRANT_TABLE, id: 0, count: 0, pad, first: 0, list: 0 };
    // DOMID_SELF is not translated here; one's real number is refused.
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(DOMID_SELF, 0)), ESRCH);
    if is_dom0() {
        ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(0, 0)), EPERM);
    }
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(DOMID_ABSENT, 0)), ESRCH);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(DOMID_ABSENT, 1)), EINVAL);
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

fn entry(number: u32, first: u32) -> Multicall {
    Multicall { number: u64::from(number), result: 0x5a5a_5a5a, arguments: [u64::from(first), 0, 0, 0, 0, 0] }
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
const HVM_PARAM_CONSOLE_PFN: u32 = 17;
const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
const HVM_PARAM_MONITOR_RING_PFN: u32 = 28;

fn hvm_parameters_of_oneself_are_readable() -> Verdict {
    // Type 2 (PPI) in [63:56], low level in [15:8], the PPI itself in [7:0]: what the device tree says.
    let expected = 2 << 56 | 0x200 | u64::from(platform::get().event_interrupt);
    ensure_eq!(console::hvm_parameter(HVM_PARAM_CALLBACK_IRQ).unwrap_or(0), expected);
    for index in [HVM_PARAM_STORE_PFN, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_CONSOLE_EVTCHN] {
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
        HVM_PARAM_CONSOLE_PFN,
        HVM_PARAM_CONSOLE_EVTCHN,
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
    let mut argument = HvmParameter { domid: DOMID_ABSENT, pad: 0, index: HVM_PARAM_STORE_PFN, value: 0 };
    ensure_eq!(call_with(hypercall::HVM_OP, abi::HVMOP_GET_PARAM, &mut argument), ESRCH);
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
    let mut argument = [u32::from(DOMID_ABSENT), 0];
    ensure_eq!(call_with(hypercall::SCHED_OP, abi::SCHEDOP_REMOTE_SHUTDOWN, &mut argument), ESRCH);
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
    Ok(())
}

fn vcpu_info_can_be_registered_once_and_raises_an_upcall() -> Verdict {
    let frame = Frame::take();
    let interrupt = platform::get().event_interrupt;
    gic::enable(interrupt);
    guests::interrupt::reset();
    ensure_eq!(event::register_vcpu_info(0, frame.gfn(), PAGE_SIZE - 48), 0);
    ensure!(event::VcpuInfo(frame.address() + PAGE_SIZE - 48).upcall_pending());
    ensure!(guests::interrupt::comes(interrupt, 1));
    ensure_eq!(event::register_vcpu_info(0, frame.gfn(), 0), EINVAL);
    Ok(())
}

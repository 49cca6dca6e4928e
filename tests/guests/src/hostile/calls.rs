//! Hypercalls: numbers, operations, pointers and counts that nobody ought to pass.

use guests::abi::{self, DOM0, DOMID_ABSENT, DOMID_SELF, HvmParameter, Poll};
use guests::console::hvm_parameter;
use guests::exception::Kind;
use guests::harness::Verdict;
use guests::hypercall::{
    CONSOLE_IO, DOMCTL, EVENT_CHANNEL_OP, GRANT_TABLE_OP, HVM_OP, MEMORY_OP, MULTICALL, PHYSDEV_OP, PLATFORM_OP,
    SCHED_OP, SYSCTL, VCPU_OP, VM_ASSIST, XEN_VERSION, address_of, call, call_with,
};
use guests::memory::{self, Frame, PAGE_SIZE, Slot};
use guests::status::{EFAULT, EINVAL, ENOSYS, EPERM};
use guests::{ensure, ensure_eq, event, gic, grant, platform};

use crate::common::{Code, Random, borrow, code, fresh, give_back, hole, is, lend, load, store, table};

/// Those that somebody answers; `-ENOSYS` is for all others.
const KNOWN: [u32; 17] = [
    6,
    PLATFORM_OP,
    MEMORY_OP,
    MULTICALL,
    16,
    XEN_VERSION,
    CONSOLE_IO,
    GRANT_TABLE_OP,
    VM_ASSIST,
    VCPU_OP,
    SCHED_OP,
    EVENT_CHANNEL_OP,
    PHYSDEV_OP,
    HVM_OP,
    SYSCTL,
    DOMCTL,
    HYPFS_OP,
];
const HYPFS_OP: u32 = 42;
const SCHED_OP_COMPAT: u32 = 6;

/// Pointers that lead to no memory of this domain.
fn bad_pointers() -> [u32; 8] {
    let machine = platform::get();
    [0, 1, memory::UNMAPPED, 0xffff_fffc, 0xffff_f000, machine.distributor, machine.cpu_interface + 0xffc, 0x0900_0000]
}

pub fn every_number_without_arguments() -> Verdict {
    for number in (0..256).chain([0x100, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX]) {
        let answer = call(number, [0; 5]);
        if !KNOWN.contains(&number) {
            ensure_eq!(answer, ENOSYS, number);
        }
        ensure!(answer > -1000, number);
    }
    Ok(())
}

pub fn every_number_with_all_bits() -> Verdict {
    for number in (0..256).filter(|&number| number != SCHED_OP && number != SCHED_OP_COMPAT) {
        let answer = call(number, [u32::MAX; 5]);
        ensure!((-1000..0).contains(&answer), number);
    }
    Ok(())
}

/// Returns whether the operation ignores its pointer.
fn needs_no_pointer(number: u32, operation: u32) -> bool {
    match number {
        XEN_VERSION => matches!(operation, 0 | 7),
        // Lists of extents answer how many were done, whatever is wrong.
        MEMORY_OP => matches!(operation, 0 | 1 | 2 | 6 | 18 | 19),
        VM_ASSIST => true,
        // guest_request_vm_event: nobody listens.
        HVM_OP => operation == 24,
        _ => false,
    }
}

pub fn every_operation_with_pointers_to_nowhere() -> Verdict {
    for number in KNOWN {
        for operation in 0..64 {
            // Yield, block: there are attacks for them.
            if matches!(number, SCHED_OP | SCHED_OP_COMPAT) && operation < 2 {
                continue;
            }
            for pointer in bad_pointers() {
                // A list of no calls.
                if number == MULTICALL && pointer == 0 {
                    continue;
                }
                let answer = call(number, [operation, pointer, 1, pointer, 0]);
                let at = number << 16 | operation;
                ensure!((-1000..0).contains(&answer) || needs_no_pointer(number, operation), at);
            }
        }
    }
    Ok(())
}

pub fn a_device_is_no_buffer() -> Verdict {
    let before = guests::mmio::read32(gic::distributor(gic::ISENABLER));
    let [distributor, interface] = [platform::get().distributor + gic::ISENABLER, platform::get().cpu_interface];
    for pointer in [distributor, interface] {
        ensure_eq!(call(XEN_VERSION, [1, pointer, 0, 0, 0]), EFAULT, pointer);
        ensure_eq!(call(EVENT_CHANNEL_OP, [event::STATUS, pointer, 0, 0, 0]), EFAULT, pointer);
        ensure_eq!(call(MEMORY_OP, [abi::MEM_CURRENT_RESERVATION, pointer, 0, 0, 0]), EFAULT, pointer);
    }
    ensure_eq!(guests::mmio::read32(gic::distributor(gic::ISENABLER)), before);
    Ok(())
}

pub fn every_immediate_of_hvc_is_undefined() -> Verdict {
    let code = Code::page();
    let near = (1..64).chain(0xe80..0xec0).chain(0xff00..0xff40).filter(|&immediate| immediate != 0xea1);
    for immediate in near.chain((64..0x1_0000).step_by(331)) {
        ensure!(is(code.run(&[code::hvc(immediate)], 0, 0), Kind::Undefined), immediate);
    }
    Ok(())
}

pub fn every_immediate_of_smc_is_harmless() -> Verdict {
    let code = Code::page();
    for immediate in 0..16 {
        // PSCI_VERSION, an owner that is not there, nonsense.
        for function in [0x8400_0000, 0xbf00_0001, 0xffff_ffff, 0x1234] {
            let answer = code.run(&[code::smc(immediate)], function, 0);
            ensure!(answer.is_ok() || is(answer, Kind::Undefined), immediate);
        }
    }
    Ok(())
}

pub fn user_mode_makes_no_call() -> Verdict {
    let code = Code::page();
    for instruction in [code::hvc(0xea1), code::hvc(0), code::hvc(1), code::smc(0), code::smc(7)] {
        let fault = code.run_in_user_mode(&[instruction], SCHED_OP, 0);
        ensure!(fault.is_some_and(|fault| fault.kind == Kind::Undefined), instruction);
    }
    Ok(())
}

pub fn user_mode_makes_no_call_in_loops() -> Verdict {
    let code = Code::page();
    for n in 0..2000 {
        let fault = code.run_in_user_mode(&[code::hvc(0xea1), code::smc(0)], n, n);
        ensure!(fault.is_some_and(|fault| fault.kind == Kind::Undefined), n);
    }
    Ok(())
}

/// An address so many bytes before an unmapped page.
fn before_the_end(bytes: u32) -> u32 {
    memory::unmap_fixed(Slot::AfterTest);
    memory::map_fixed(Slot::Test, edge_page()) + PAGE_SIZE - bytes
}

fn edge_page() -> u32 {
    use core::sync::atomic::{AtomicU32, Ordering};
    static PAGE: AtomicU32 = AtomicU32::new(0);
    if PAGE.load(Ordering::Relaxed) == 0 {
        PAGE.store(Frame::take().address(), Ordering::Relaxed);
    }
    PAGE.load(Ordering::Relaxed)
}

pub fn arguments_across_the_end_of_memory() -> Verdict {
    // Number, operation, bytes of the argument.
    let arguments = [
        (XEN_VERSION, 1, 16),
        (XEN_VERSION, 3, 1024),
        (XEN_VERSION, 2, 144),
        (EVENT_CHANNEL_OP, event::STATUS, 24),
        (EVENT_CHANNEL_OP, event::ALLOC_UNBOUND, 8),
        (EVENT_CHANNEL_OP, event::INIT_CONTROL, 24),
        (HVM_OP, abi::HVMOP_GET_PARAM, 16),
        (MEMORY_OP, abi::MEM_POPULATE_PHYSMAP, 32),
        (MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, 24),
        (MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, 32),
        (GRANT_TABLE_OP, grant::MAP_GRANT_REF, 32),
        (GRANT_TABLE_OP, grant::COPY, 40),
        (GRANT_TABLE_OP, grant::QUERY_SIZE, 16),
        (SCHED_OP, abi::SCHEDOP_POLL, 24),
    ];
    for (number, operation, bytes) in arguments {
        for rest in (1..bytes).step_by(if bytes > 64 { 37 } else { 1 }) {
            let answer = call(number, [operation, before_the_end(rest), 1, 0, 0]);
            let wanted = if needs_no_pointer(number, operation) { 0 } else { EFAULT };
            ensure_eq!(answer, wanted, number << 16 | operation << 8 | rest);
        }
    }
    Ok(())
}

pub fn answers_into_read_only_memory() -> Verdict {
    let page = Frame::take();
    page.write(0, 0xaaaa_aaaa);
    let pointer = memory::map_fixed_read_only(Slot::Test, page.address());
    ensure_eq!(call(XEN_VERSION, [1, pointer, 0, 0, 0]), EFAULT);
    ensure_eq!(call(XEN_VERSION, [3, pointer, 0, 0, 0]), EFAULT);
    ensure!(call(GRANT_TABLE_OP, [grant::QUERY_SIZE, pointer, 1, 0, 0]) < 0);
    ensure_eq!(page.read(0), 0xaaaa_aaaa_u32);
    Ok(())
}

fn answer_into_a_grant(flags: u32) -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    page.write(0, 0x5555_5555);
    lend(table, 0, grant::READ_ONLY, page);
    let mapping = grant::map(crate::common::FIRST, grant::myself(), grant::MAP_HOST | grant::MAP_READ_ONLY, at);
    ensure_eq!(mapping.status, 0);
    ensure_eq!(call(XEN_VERSION, [1, at.address() + flags, 0, 0, 0]), EFAULT);
    ensure_eq!(page.read(0), 0x5555_5555);
    give_back(mapping.handle, at)
}

pub fn answers_into_a_read_only_grant() -> Verdict {
    answer_into_a_grant(0)?;
    answer_into_a_grant(8)
}

pub fn answers_into_a_writable_grant() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    page.write(0, 0x5555_5555);
    lend(table, 0, 0, page);
    let handle = borrow(crate::common::FIRST, at)?;
    ensure_eq!(call(XEN_VERSION, [1, at.address(), 0, 0, 0]), EFAULT);
    ensure_eq!(page.read(0), 0x5555_5555);
    give_back(handle, at)
}

/// They are this domain's own to write: what is answered is in the page, or refused, and nowhere else.
pub fn answers_into_pages_of_the_hypervisor() -> Verdict {
    let (table, (shared, _)) = (table()?, fresh()?);
    for pointer in [table.0.address() + 2048, shared.0.address() + 3072] {
        let before = load(pointer + 16).ok();
        let answer = call(XEN_VERSION, [1, pointer, 0, 0, 0]);
        ensure!(answer == 0 || answer == EFAULT, pointer);
        ensure!(load(pointer + 16).ok() == before, pointer);
        (0..16).step_by(4).for_each(|offset| _ = store(pointer + offset, 0));
    }
    Ok(())
}

pub fn counts_that_wrap() -> Verdict {
    let pointer = before_the_end(64);
    // The version is asked for and set without a list.
    for operation in (0..13).filter(|&operation| !matches!(operation, grant::SET_VERSION | grant::GET_VERSION)) {
        for count in [u32::MAX, 0x8000_0000, 0x7fff_ffff, 0x0666_6667, 0x1000_0001, 0x0800_0000] {
            let answer = call(GRANT_TABLE_OP, [operation, pointer, count, 0, 0]);
            ensure!(answer < 0, operation << 8);
        }
    }
    for count in [u64::MAX, 1 << 63, 1 << 61, 1 << 32, 1 << 31, 0xffff_ffff] {
        for operation in [abi::MEM_POPULATE_PHYSMAP, abi::MEM_DECREASE_RESERVATION, abi::MEM_INCREASE_RESERVATION] {
            let mut argument = abi::Reservation {
                extents: before_the_end(8).into(),
                count,
                domid: DOMID_SELF,
                ..abi::Reservation::default()
            };
            let answer = call_with(MEMORY_OP, operation, &mut argument);
            ensure!((-1000..=1).contains(&answer), operation);
        }
    }
    for count in [u32::MAX, 0x8000_0000, 0x0400_0000, 0x0400_0001] {
        ensure!(call(MULTICALL, [before_the_end(63), count, 0, 0, 0]) < 0, count);
    }
    Ok(())
}

pub fn lists_of_65535_pages() -> Verdict {
    for space in [abi::SPACE_GRANT_TABLE, abi::SPACE_SHARED_INFO, abi::SPACE_FOREIGN, abi::SPACE_GMFN_RANGE, 5, 77] {
        let pointer = u64::from(before_the_end(64));
        let mut argument = abi::AddToPhysmapBatch {
            domid: DOMID_SELF,
            space: space as u16,
            size: u16::MAX,
            foreign: DOM0,
            indices: pointer,
            gfns: pointer,
            errors: pointer,
        };
        ensure!(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, &mut argument) <= 0, space);
    }
    Ok(())
}

/// `struct multicall_entry`.
const ENTRY_WORDS: usize = 16;

fn entry(number: u32, arguments: [u32; 3]) -> [u32; ENTRY_WORDS] {
    let mut words = [0; ENTRY_WORDS];
    (words[0], words[2]) = (number, 0x5a5a_5a5a);
    (words[4], words[6], words[8]) = (arguments[0], arguments[1], arguments[2]);
    words
}

pub fn multicalls_within_multicalls() -> Verdict {
    let mut inner = entry(XEN_VERSION, [0; 3]);
    let inner_address = address_of(&mut inner);
    let mut outer = [
        entry(MULTICALL, [inner_address, 1, 0]),
        entry(XEN_VERSION, [0; 3]),
        entry(999, [0; 3]),
        entry(SCHED_OP, [0; 3]),
        entry(XEN_VERSION, [1, memory::UNMAPPED, 0]),
    ];
    // One that leads to itself.
    let own = address_of(&mut outer);
    outer[0][4] = own;
    ensure_eq!(call(MULTICALL, [own, 5, 0, 0, 0]), 0);
    ensure_eq!(outer[0][2] as i32, EINVAL);
    ensure_eq!(outer[1][2], 0x4_0011);
    ensure_eq!(outer[2][2] as i32, ENOSYS);
    ensure_eq!(outer[3][2], 0);
    ensure_eq!(outer[4][2] as i32, EFAULT);
    Ok(())
}

pub fn multicalls_of_thousands() -> Verdict {
    const ENTRIES: u32 = 2048;
    let pages = Frame::take_aligned(32);
    for n in 0..ENTRIES {
        let words = entry(XEN_VERSION, [if n % 2 == 0 { 0 } else { 7 }, 0, 0]);
        for (index, &word) in words.iter().enumerate() {
            pages.nth(n / 64).write(n % 64 * 64 + index as u32 * 4, word);
        }
    }
    ensure_eq!(call(MULTICALL, [pages.address(), ENTRIES, 0, 0, 0]), 0);
    for n in 0..ENTRIES {
        let wanted = if n % 2 == 0 { 0x4_0011 } else { 4096 };
        ensure_eq!(pages.nth(n / 64).read(n % 64 * 64 + 8), wanted, n);
    }
    Ok(())
}

pub fn answers_about_the_version_have_no_stale_bytes() -> Verdict {
    for (operation, bytes) in [(1, 16), (2, 144), (3, 1024), (4, 64), (9, 1024)] {
        let (first, second) = (Frame::take(), Frame::take());
        for (page, poison) in [(first, 0xaaaa_aaaa), (second, 0x5555_5555_u32)] {
            (0..PAGE_SIZE).step_by(4).for_each(|offset| page.write(offset, poison));
            ensure!(call(XEN_VERSION, [operation, page.address(), 0, 0, 0]) >= 0, operation);
        }
        for offset in (0..bytes).step_by(4) {
            ensure_eq!(first.read(offset), second.read(offset), operation << 16 | offset);
        }
        ensure_eq!(first.read(bytes), 0xaaaa_aaaa_u32, operation);
    }
    Ok(())
}

/// All commands of a control call, in the right and in wrong versions, on everybody.
fn control(number: u32, versions: &[u32]) -> Verdict {
    for command in (0..128).chain([1000, 0x7fff_ffff, u32::MAX]) {
        for &version in versions {
            for domain in [DOM0, DOMID_SELF, DOMID_ABSENT, grant::myself()] {
                let mut words = [0_u32; 40];
                (words[0], words[1], words[2]) = (command, version, domain.into());
                let answer = call(number, [address_of(&mut words), 0, 0, 0, 0]);
                ensure!((-1000..0).contains(&answer), command);
            }
        }
    }
    Ok(())
}

pub fn domctl_is_not_for_guests() -> Verdict {
    control(DOMCTL, &[0x15, 0x14, 0, u32::MAX])
}

pub fn sysctl_is_not_for_guests() -> Verdict {
    control(SYSCTL, &[0x15, 0x14, u32::MAX])
}

pub fn platform_op_is_not_for_guests() -> Verdict {
    control(PLATFORM_OP, &[0x0300_0001, 0, u32::MAX])
}

pub fn hypfs_is_not_for_guests() -> Verdict {
    let page = Frame::take();
    for command in 0..16 {
        let answer = call(HYPFS_OP, [command, page.address(), 1, page.address(), PAGE_SIZE]);
        ensure!((-1000..0).contains(&answer), command);
    }
    Ok(())
}

pub fn calls_that_xen_has_elsewhere() -> Verdict {
    let page = Frame::take();
    // xsm_op, nmi_op, kexec, tmem, argo, xenpmu, dm_op, callback_op, iret.
    for number in [27, 28, 37, 38, 39, 40, 41, 30, 23] {
        for operation in 0..256 {
            let answer = call(number, [operation, page.address(), 2, page.address(), 0]);
            ensure_eq!(answer, ENOSYS, number << 16 | operation);
        }
    }
    Ok(())
}

pub fn parameters_of_others_and_of_the_toolstack() -> Verdict {
    let before = [17, 18, 1, 2].map(|index| hvm_parameter(index).unwrap_or(0));
    for index in 0..64 {
        for domid in [DOM0, DOMID_SELF, DOMID_ABSENT, 0x7ff2, 0x7fff, 0xffff] {
            let mut argument = HvmParameter { domid, pad: 0, index, value: u64::MAX };
            let answer = call_with(HVM_OP, abi::HVMOP_SET_PARAM, &mut argument);
            ensure!(answer < 0, index);
            if domid != DOMID_SELF {
                ensure!(call_with(HVM_OP, abi::HVMOP_GET_PARAM, &mut argument) < 0, index);
            }
        }
    }
    ensure!([17, 18, 1, 2].map(|index| hvm_parameter(index).unwrap_or(0)) == before);
    Ok(())
}

pub fn vcpu_info_in_places_that_are_none() -> Verdict {
    let (hole, page) = (hole()?, Frame::take());
    // Unaligned by one and two; across the end; no memory; beyond 40 bits; a device.
    for (gfn, offset) in [
        (page.gfn(), 1),
        (page.gfn(), 2),
        (page.gfn(), PAGE_SIZE - 63),
        (page.gfn(), PAGE_SIZE - 8),
        (page.gfn(), PAGE_SIZE),
        (page.gfn(), u32::MAX),
        (hole.gfn(), 0),
        (1 << 28, 0),
        (u64::MAX, 0),
        (u64::from(platform::get().distributor >> 12), 0),
    ] {
        for vcpu in [2, 3, 4, 255, u32::MAX] {
            ensure!(event::register_vcpu_info(vcpu, gfn, offset) < 0, offset);
        }
    }
    Ok(())
}

pub fn run_state_in_places_that_are_none() -> Verdict {
    let hole = hole()?;
    let edge = before_the_end(16);
    let table = table()?;
    let places =
        [hole.address(), edge, edge + 3, table.0.address(), platform::get().distributor, memory::UNMAPPED, u32::MAX, 1];
    for place in places {
        let mut argument = u64::from(place);
        let answer = call(VCPU_OP, [abi::VCPUOP_REGISTER_RUNSTATE, 0, address_of(&mut argument), 0, 0]);
        ensure!((-1000..=0).contains(&answer), place);
        // It is written at each switch.
        for _ in 0..20 {
            call(SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
        }
    }
    let mut argument = u64::from(Frame::take().address());
    ensure_eq!(call(VCPU_OP, [abi::VCPUOP_REGISTER_RUNSTATE, 0, address_of(&mut argument), 0, 0]), 0);
    Ok(())
}

pub fn vcpu_operations_on_vcpus_that_are_none() -> Verdict {
    let mut words = [0_u64; 8];
    for operation in 0..32 {
        for vcpu in [4, 5, 8, 127, 128, 255, 0x7fff_ffff, u32::MAX] {
            ensure!(call(VCPU_OP, [operation, vcpu, address_of(&mut words), 0, 0]) < 0, operation);
        }
    }
    Ok(())
}

pub fn watchdogs_at_the_end_of_time() -> Verdict {
    #[repr(C)]
    struct Watchdog {
        id: u32,
        timeout: u32,
    }
    let operate = |id, timeout| call_with(SCHED_OP, abi::SCHEDOP_WATCHDOG, &mut Watchdog { id, timeout });
    for id in [3, 4, 100, u32::MAX] {
        ensure!(operate(id, 1000) < 0, id);
    }
    // Seconds: none of these is over while this runs.
    for timeout in [u32::MAX, 0x8000_0000, 0x7fff_ffff, 1 << 20] {
        let id = operate(0, timeout);
        ensure!(id > 0, timeout);
        ensure_eq!(operate(id as u32, u32::MAX), 0, timeout);
        ensure_eq!(operate(id as u32, 0), 0, timeout);
        ensure!(operate(id as u32, 0) <= 0, timeout);
    }
    Ok(())
}

pub fn polls_of_ports_that_are_none() -> Verdict {
    fresh()?;
    let mut ports = [0_u32; 256];
    for (n, port) in [0, 1, 127, 128, 129, 4095, 4096, 131_071, 131_072, 0x8000_0000, u32::MAX].into_iter().enumerate()
    {
        for count in [0, 1, 128, 129, 130, 0x4000_0001, u32::MAX] {
            ports.fill(port);
            // A deadline that is over already.
            let mut poll = Poll { ports: address_of(&mut ports).into(), count, timeout: 1, ..Poll::default() };
            let answer = call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut poll);
            ensure!((-1000..=0).contains(&answer), n);
            ensure!(count <= 128 || answer < 0, count);
        }
    }
    for pointer in bad_pointers() {
        let mut poll = Poll { ports: pointer.into(), count: 4, timeout: 1, ..Poll::default() };
        ensure_eq!(call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut poll), EFAULT, pointer);
    }
    Ok(())
}

pub fn others_are_not_shut_down() -> Verdict {
    for domain in [DOM0, DOMID_ABSENT, 0x7ff2, 0xffff] {
        for reason in [0, 1, 3, 255, u32::MAX] {
            let mut argument = [u32::from(domain), reason];
            ensure!(call_with(SCHED_OP, abi::SCHEDOP_REMOTE_SHUTDOWN, &mut argument) < 0, domain);
        }
    }
    // Override of pins, shutdown codes of others, what is not there.
    for operation in [5, 7, 8, 9, 100, u32::MAX] {
        let mut argument = [0_u32; 8];
        ensure!(call_with(SCHED_OP, operation, &mut argument) <= 0, operation);
    }
    Ok(())
}

pub fn the_console_of_the_hypervisor_is_not_for_guests() -> Verdict {
    let page = Frame::take();
    for command in 0..4 {
        for count in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            ensure_eq!(call(CONSOLE_IO, [command, count, page.address(), 0, 0]), EPERM, command);
        }
    }
    Ok(())
}

pub fn tables_that_lead_nowhere() -> Verdict {
    let (hole, page) = (hole()?, Frame::take());
    let mut random = Random::new(22);
    for table in [hole.address(), platform::get().distributor & !0xfff, 0xffff_f000, 0x0900_0000, page.address()] {
        for _ in 0..8 {
            if table == page.address() {
                // Pages in devices, in holes, beyond 40 bits, blocks where none may be.
                for entry in 0..8 {
                    page.write(entry * 8, random.word() | 3);
                    page.write(entry * 8 + 4, random.word() & 0xff | 1 << 7);
                }
            }
            memory::set_table_of_unmapped(Some(table));
            let answer = call(XEN_VERSION, [1, memory::UNMAPPED, 0, 0, 0]);
            memory::set_table_of_unmapped(None);
            ensure_eq!(answer, EFAULT, table);
        }
    }
    Ok(())
}

pub fn tables_that_lead_to_devices() -> Verdict {
    let page = Frame::take();
    let machine = platform::get();
    for target in [machine.distributor, machine.cpu_interface, 0x0800_0000, 0x0803_0000, 0x0900_0000, 0x0a00_0000] {
        // A page, any privilege, writable.
        page.write(0, target & !0xfff | 0x743);
        page.write(4, 0);
        memory::set_table_of_unmapped(Some(page.address()));
        let answer = call(XEN_VERSION, [1, memory::UNMAPPED, 0, 0, 0]);
        memory::set_table_of_unmapped(None);
        ensure_eq!(answer, EFAULT, target);
    }
    Ok(())
}

/// Calls by chance, whose pointers lead to a page of numbers by chance. What would end or stop this domain is left out.
pub fn calls_by_chance() -> Verdict {
    fresh()?;
    let (argument, list) = (Frame::take(), Frame::take());
    let victims = Frame::take_aligned(16);
    let mut random = Random::new(4711);
    for entry in 0..64 {
        list.write(entry * 8, victims.nth(entry % 16).gfn() as u32);
    }
    let numbers = [
        MEMORY_OP,
        GRANT_TABLE_OP,
        EVENT_CHANNEL_OP,
        XEN_VERSION,
        HVM_OP,
        VCPU_OP,
        SCHED_OP,
        VM_ASSIST,
        DOMCTL,
        SYSCTL,
        CONSOLE_IO,
        PHYSDEV_OP,
        HYPFS_OP,
    ];
    for n in 0..6000 {
        for word in 0..24 {
            let values = [
                0,
                1,
                2,
                3,
                8,
                9,
                64,
                512,
                u32::MAX,
                0x7fff_ffff,
                DOMID_SELF.into(),
                list.address(),
                argument.address(),
                victims.gfn() as u32,
                random.word(),
                grant::myself().into(),
            ];
            argument.write(word * 4, random.of(&values));
        }
        let number = random.of(&numbers);
        let operation = random.below(32);
        if number == SCHED_OP && matches!(operation, 1..=3 | 6) {
            continue;
        }
        // Of the page itself and of what this runs from nothing is given away.
        if number == MEMORY_OP && argument.read(8) > 64 {
            argument.write(8, random.below(64));
        }
        let count = random.of(&[0, 1, 2, 3, 64]);
        let answer = call(number, [operation, argument.address(), count, random.word(), random.word()]);
        ensure!(answer > -1000, n);
    }
    fresh().map(|_| ())
}

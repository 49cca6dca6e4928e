//! Of several mistakes in a call, the one that is told: the first that Xen 4.17 finds, row by row of its ABI. On the host
//! every guest pointer leads into guest frame 0, so a domain without that frame has no good pointer at all.

use std::sync::Arc;

use armv7::addr::Gfn;
use armv7::frame::page;
use zerocopy::IntoBytes;

use super::{call, number};
use crate::abi::{domctl, hvm, hypfs, memory as mem, platform, sched, sysctl, vcpu, version};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::{Domain, Rights, registry};
use crate::error::Errno;
use crate::id::DomId;
use crate::vcpu::Vcpu;

mod elements;

struct Guest(Arc<Domain>, Arc<Vcpu>);

impl Guest {
    fn new(rights: Rights, ram: &[u32]) -> Self {
        let (domain, vcpu) = guest(rights, NO_TLB, ram);
        domain.set_vcpus(vec![vcpu.clone()]);
        Self(domain, vcpu)
    }

    fn id(&self) -> u32 {
        self.0.id.0.into()
    }

    /// Makes a call with `words` where its pointers lead.
    fn call(&self, number: u32, registers: [u32; 5], words: &[u32]) -> Outcome {
        if let Some(argument) = self.argument() {
            argument.zero();
            assert!(argument.write(0, words.as_bytes()));
        }
        let caller = Caller {
            domain: &self.0,
            vcpu: &self.1,
        };
        let mut args = Args(registers);
        loop {
            match call(&caller, number, &args) {
                // Another test may be changing domains' lives.
                Ok(Reply::Again(next)) => args = next,
                told => return told,
            }
        }
    }

    fn argument(&self) -> Option<&'static armv7::frame::SharedPage> {
        let entry = self.0.p2m.lock().lookup(Gfn::new(0)?)?;
        page(entry.mfn)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        registry::remove(self.0.id);
    }
}

/// The domains of a test: the callers, and those that the calls name.
struct Scene {
    control: Guest,
    plain: Guest,
    /// Has the rights of `control` and no good pointer.
    blind: Guest,
    /// Has no rights and no good pointer.
    blind_plain: Guest,
}

/// No domain has this number.
const ABSENT: u32 = 0x7000;
/// `DOMID_SELF`.
const SELF: u32 = DomId::SELF.0 as u32;
/// No pointer: its upper half is not zero.
const BAD: [u32; 2] = [0, 1];
/// A pointer beyond the arguments.
const LIST: [u32; 2] = [0x800, 0];
/// No frame.
const NO_GFN: [u32; 2] = [u32::MAX; 2];
/// A frame that no domain here has.
const HOLE: [u32; 2] = [0x7777, 0];
/// A frame beyond all.
const BEYOND: [u32; 2] = [0, 1];

const OK: Outcome = Ok(Reply::OK);

impl Scene {
    fn new() -> Self {
        Self {
            control: Guest::new(Rights::DOM0, &[0, 0x10]),
            plain: Guest::new(Rights::GUEST, &[0, 0x10]),
            blind: Guest::new(Rights::DOM0, &[]),
            blind_plain: Guest::new(Rights::GUEST, &[]),
        }
    }
}

/// A faulty call: its faults, caller, operation, argument, and the error that comes of it.
type Row<'a> = (&'a str, &'a Guest, u32, Vec<u32>, Outcome);

/// Makes the calls of a table by hypercall `number`, whose operation is in r0 and argument at r1.
fn check(number: u32, rows: &[Row<'_>]) {
    for (what, who, op, words, told) in rows {
        let outcome = who.call(number, [*op, 0, 1, 0, 0], words);
        assert_eq!(outcome, *told, "{number}, {op:#x}: {what}");
    }
}

/// Joins parts of an argument.
fn words(parts: &[&[u32]]) -> Vec<u32> {
    parts.concat()
}

const fn told(error: Errno) -> Outcome {
    Err(error)
}

#[test]
#[rustfmt::skip]
fn memory_operations() {
    let scene = Scene::new();
    let (control, plain, blind) = (&scene.control, &scene.plain, &scene.blind);
    let other = control.id();
    let progress = |op: u32, start: u32| op | start << 6;
    let add = |dom: u32, space: u32, idx: u32, gfn: [u32; 2]| words(&[&[dom, space, idx, 0], &gfn]);
    let batch = |dom: u32, space: u32, size: u32, foreign: u32, list: [u32; 2]| {
        let head = [dom | space << 16, size | foreign << 16];
        words(&[&head, &list, &list, &list])
    };
    let acquire = |dom: u32, kind: u32, count: u32, pad: u32, first: [u32; 2], list: [u32; 2]| {
        words(&[&[dom | kind << 16, 0, count, pad], &first, &list])
    };
    let claim = |list: [u32; 2], count: u32, order: u32, dom: u32| {
        words(&[&list, &[count, 0, order, 0, dom, 0]])
    };
    let (info, table, foreign, device) = (
        mem::SPACE_SHARED_INFO,
        mem::SPACE_GRANT_TABLE,
        mem::SPACE_GMFN_FOREIGN,
        mem::SPACE_DEV_MMIO,
    );
    let inval = || told(Errno::Inval);
    check(
        number::MEMORY_OP,
        &[
            ("progress", blind, progress(mem::OP_EXCHANGE, 1), vec![], inval()),
            ("progress", plain, progress(mem::OP_MAXIMUM_RAM_PAGE, 1), vec![], inval()),
            ("progress", blind, progress(mem::OP_CURRENT_RESERVATION, 1), vec![], inval()),
            ("progress", blind, progress(mem::OP_REMOVE_FROM_PHYSMAP, 1), vec![], inval()),
            ("progress", blind, progress(mem::OP_CLAIM_PAGES, 1), vec![], inval()),
            ("progress", blind, progress(mem::OP_GET_VNUMAINFO, 1), vec![], inval()),
            ("progress", plain, progress(mem::OP_GET_SHARING_FREED_PAGES, 1), vec![], told(Errno::NoSys)),
            ("progress", blind, progress(mem::OP_ADD_TO_PHYSMAP, 0x1_0000), vec![], told(Errno::Dom)),
            ("progress", blind, progress(mem::OP_ADD_TO_PHYSMAP_BATCH, 0x1_0000), vec![], told(Errno::Dom)),
            ("pointer", blind, mem::OP_EXCHANGE, vec![], told(Errno::Fault)),
            ("nobody's size", plain, mem::OP_MAXIMUM_GPFN, vec![ABSENT], told(Errno::Srch)),
            ("another's size", plain, mem::OP_MAXIMUM_GPFN, vec![other], told(Errno::Perm)),
            // add_to_physmap
            ("pointer", blind, mem::OP_ADD_TO_PHYSMAP, vec![], told(Errno::Fault)),
            ("foreign, of nobody", plain, mem::OP_ADD_TO_PHYSMAP, add(ABSENT, foreign, 0, NO_GFN), told(Errno::NoSys)),
            ("nobody", plain, mem::OP_ADD_TO_PHYSMAP, add(ABSENT, device, 0, NO_GFN), told(Errno::Srch)),
            ("a device for a guest", plain, mem::OP_ADD_TO_PHYSMAP, add(SELF, device, 0, NO_GFN), told(Errno::Acces)),
            ("a device for another", plain, mem::OP_ADD_TO_PHYSMAP, add(other, device, 0, NO_GFN), told(Errno::Acces)),
            ("another", plain, mem::OP_ADD_TO_PHYSMAP, add(other, 99, 0, NO_GFN), told(Errno::Perm)),
            ("no frame, no space", plain, mem::OP_ADD_TO_PHYSMAP, add(SELF, 99, 0, NO_GFN), inval()),
            ("no space", plain, mem::OP_ADD_TO_PHYSMAP, add(SELF, 99, 0, BEYOND), told(Errno::NoSys)),
            ("index", plain, mem::OP_ADD_TO_PHYSMAP, add(SELF, info, 1, BEYOND), inval()),
            ("index", plain, mem::OP_ADD_TO_PHYSMAP, add(SELF, table, 4, BEYOND), inval()),
            // add_to_physmap_batch
            ("pointer", blind, mem::OP_ADD_TO_PHYSMAP_BATCH, vec![], told(Errno::Fault)),
            ("range, of nobody", plain, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(ABSENT, 3, 1, 0, BAD), told(Errno::OpNotSupp)),
            ("nobody", plain, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(ABSENT, device, 0, 1, BAD), told(Errno::Srch)),
            ("a device for a guest", plain, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(SELF, device, 0, 1, BAD), told(Errno::Acces)),
            ("another", plain, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(other, 99, 0, 1, BAD), told(Errno::Perm)),
            ("nothing, of nobody", plain, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(SELF, foreign, 0, ABSENT, BAD), OK),
            ("progress", plain, progress(mem::OP_ADD_TO_PHYSMAP_BATCH, 1), batch(SELF, foreign, 1, ABSENT, BAD), told(Errno::IlSeq)),
            ("progress", plain, progress(mem::OP_ADD_TO_PHYSMAP_BATCH, 2), batch(SELF, foreign, 1, ABSENT, BAD), told(Errno::IlSeq)),
            ("list, of nobody", plain, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(SELF, foreign, 1, ABSENT, BAD), told(Errno::Fault)),
            ("reserved, list", control, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(SELF, device, 1, 1, BAD), told(Errno::OpNotSupp)),
            ("of nobody, for each page", plain, mem::OP_ADD_TO_PHYSMAP_BATCH, batch(SELF, foreign, 1, ABSENT, LIST), OK),
            // remove_from_physmap
            ("pointer", blind, mem::OP_REMOVE_FROM_PHYSMAP, vec![], told(Errno::Fault)),
            ("nobody", plain, mem::OP_REMOVE_FROM_PHYSMAP, words(&[&[ABSENT, 0], &HOLE]), told(Errno::Srch)),
            ("another", plain, mem::OP_REMOVE_FROM_PHYSMAP, words(&[&[other, 0], &HOLE]), told(Errno::Perm)),
            ("hole", plain, mem::OP_REMOVE_FROM_PHYSMAP, words(&[&[SELF, 0], &HOLE]), told(Errno::NoEnt)),
            ("beyond all", plain, mem::OP_REMOVE_FROM_PHYSMAP, words(&[&[SELF, 0], &BEYOND]), told(Errno::NoEnt)),
            // claim_pages
            ("pointer", &scene.blind_plain, mem::OP_CLAIM_PAGES, vec![], told(Errno::Fault)),
            ("list", plain, mem::OP_CLAIM_PAGES, claim(LIST, 0, 0, ABSENT), inval()),
            ("order", plain, mem::OP_CLAIM_PAGES, claim([0, 0], 0, 1, ABSENT), inval()),
            ("nobody", plain, mem::OP_CLAIM_PAGES, claim([0, 0], 0, 0, ABSENT), inval()),
            ("DOMID_SELF", plain, mem::OP_CLAIM_PAGES, claim([0, 0], 0, 0, SELF), inval()),
            ("no right", plain, mem::OP_CLAIM_PAGES, claim([0, 0], 0, 0, other), told(Errno::Perm)),
            ("too many", control, mem::OP_CLAIM_PAGES, claim([0, 0], u32::MAX, 0, plain.id()), told(Errno::NoMem)),
            // get_vnumainfo
            ("pointer", blind, mem::OP_GET_VNUMAINFO, vec![], told(Errno::Fault)),
            ("padding", plain, mem::OP_GET_VNUMAINFO, vec![ABSENT | 1 << 16], inval()),
            ("nobody", plain, mem::OP_GET_VNUMAINFO, vec![ABSENT], told(Errno::Srch)),
            ("another", plain, mem::OP_GET_VNUMAINFO, vec![other], told(Errno::Perm)),
            ("none", plain, mem::OP_GET_VNUMAINFO, vec![SELF], told(Errno::OpNotSupp)),
            // reserved_device_memory_map
            ("pointer", blind, mem::OP_RESERVED_DEVICE_MEMORY_MAP, vec![], told(Errno::Fault)),
            ("flags", plain, mem::OP_RESERVED_DEVICE_MEMORY_MAP, vec![2], inval()),
            // acquire_resource
            ("pointer", &scene.blind_plain, mem::OP_ACQUIRE_RESOURCE, vec![], told(Errno::Fault)),
            ("padding", plain, mem::OP_ACQUIRE_RESOURCE, acquire(ABSENT, 9, 1, 1, [0, 0], BAD), inval()),
            ("frame", plain, mem::OP_ACQUIRE_RESOURCE, acquire(ABSENT, 9, 1, 0, [0, 1], BAD), inval()),
            ("end", plain, mem::OP_ACQUIRE_RESOURCE, acquire(ABSENT, 9, 1, 0, [u32::MAX, 0], BAD), inval()),
            ("nobody", plain, mem::OP_ACQUIRE_RESOURCE, acquire(ABSENT, 9, 1, 0, [0, 0], BAD), told(Errno::Srch)),
            ("oneself", plain, mem::OP_ACQUIRE_RESOURCE, acquire(plain.id(), 9, 1, 0, [0, 0], BAD), told(Errno::Perm)),
            ("no right", plain, mem::OP_ACQUIRE_RESOURCE, acquire(other, 9, 1, 0, [0, 0], BAD), told(Errno::Perm)),
            ("resource", control, mem::OP_ACQUIRE_RESOURCE, acquire(plain.id(), 9, 1, 0, [0, 0], BAD), inval()),
            ("no list", control, mem::OP_ACQUIRE_RESOURCE, acquire(plain.id(), 1, 1, 0, [0, 0], [0, 0]), inval()),
            ("no frames", control, mem::OP_ACQUIRE_RESOURCE, acquire(plain.id(), 1, 0, 0, [0, 0], LIST), inval()),
            ("too many, list", control, mem::OP_ACQUIRE_RESOURCE, acquire(plain.id(), 1, 5, 0, [0, 0], BAD), inval()),
            ("list", control, mem::OP_ACQUIRE_RESOURCE, acquire(plain.id(), 1, 1, 0, [0, 0], BAD), told(Errno::Fault)),
        ],
    );
    // The batch that was about nobody said so of its page: the argument's list of errors is where the frames are.
    let argument = plain.argument().unwrap();
    let foreign_of_nobody = batch(SELF, foreign, 1, ABSENT, LIST);
    let _ = plain.call(
        number::MEMORY_OP,
        [mem::OP_ADD_TO_PHYSMAP_BATCH, 0, 0, 0, 0],
        &foreign_of_nobody,
    );
    let mut error = [0; 4];
    assert!(argument.read(0x800, &mut error));
    assert_eq!(i32::from_le_bytes(error), -(Errno::Srch as i32));
}

#[test]
#[rustfmt::skip]
fn small_calls() {
    let scene = Scene::new();
    let (control, plain, blind) = (&scene.control, &scene.plain, &scene.blind);
    let other = control.id();
    let param = |dom: u32, index: u32| vec![dom, index, 0, 0];
    check(
        number::HVM_OP,
        &[
            ("pointer", blind, hvm::OP_SET_PARAM, vec![], told(Errno::Fault)),
            ("nobody, index", plain, hvm::OP_SET_PARAM, param(ABSENT, 99), told(Errno::Srch)),
            ("another, index", plain, hvm::OP_SET_PARAM, param(other, 99), told(Errno::Perm)),
            ("oneself, index", plain, hvm::OP_SET_PARAM, param(SELF, 99), told(Errno::Inval)),
            ("oneself", plain, hvm::OP_SET_PARAM, param(SELF, hvm::PARAM_STORE_PFN), told(Errno::Perm)),
            ("nobody, index", plain, hvm::OP_GET_PARAM, param(ABSENT, 99), told(Errno::Srch)),
            ("another, index", plain, hvm::OP_GET_PARAM, param(other, 99), told(Errno::Perm)),
            ("index", plain, hvm::OP_GET_PARAM, param(SELF, 99), told(Errno::Inval)),
            ("toolstack's", plain, hvm::OP_GET_PARAM, param(SELF, hvm::PARAM_MONITOR_RING_PFN), told(Errno::Perm)),
        ],
    );
    for (op, kind, outcome) in [
        (9, 9, told(Errno::Inval)),
        (9, 5, told(Errno::NoSys)),
        (0, 40, told(Errno::Inval)),
        (0, 5, OK),
    ] {
        assert_eq!(
            plain.call(number::VM_ASSIST, [op, kind, 0, 0, 0], &[]),
            outcome
        );
    }
    let settime = |version: u32, zero: u32| words(&[&[62, version], &[0; 3], &[zero, 0, 0]]);
    for (who, argument, outcome) in [
        (&scene.blind_plain, vec![], told(Errno::Fault)),
        (plain, settime(0, 1), told(Errno::Acces)),
        (plain, settime(platform::INTERFACE_VERSION, 1), told(Errno::Perm)),
        (control, settime(platform::INTERFACE_VERSION, 1), told(Errno::Inval)),
        (control, vec![1, platform::INTERFACE_VERSION], told(Errno::NoSys)),
    ] {
        assert_eq!(who.call(number::PLATFORM_OP, [0; 5], &argument), outcome);
    }
    // At a pointer that is not null: the host looks at its offset in the page only.
    let at = 0x1000;
    for (who, length, outcome) in [
        (plain, 0, told(Errno::Perm)),
        (blind, 0, told(Errno::Fault)),
        (control, 0, told(Errno::Inval)),
    ] {
        let told = who.call(
            number::XEN_VERSION,
            [version::OP_BUILD_ID, at, 0, 0, 0],
            &[length],
        );
        assert_eq!(told, outcome);
    }
    for (who, op, count, outcome) in [
        (&scene.blind_plain, 9, u32::MAX, told(Errno::Perm)),
        (control, 9, u32::MAX, told(Errno::NoSys)),
        (blind, 0, 1, told(Errno::Fault)),
        (blind, 1, 1 << 31, told(Errno::TooBig)),
    ] {
        assert_eq!(
            who.call(number::CONSOLE_IO, [op, count, 0, 0, 0], &[]),
            outcome
        );
    }
    assert_eq!(
        blind.call(number::PHYSDEV_OP, [1, 0, 0, 0, 0], &[]),
        told(Errno::NoSys)
    );
}

#[test]
#[rustfmt::skip]
fn vcpu_and_scheduler_operations() {
    let scene = Scene::new();
    let (control, plain, blind) = (&scene.control, &scene.plain, &scene.blind);
    let info = |gfn: [u32; 2], offset: u32| words(&[&gfn, &[offset, 0]]);
    for (what, who, op, vcpu, argument, outcome) in [
        ("vCPU, operation", blind, 99, 1, vec![], told(Errno::NoEnt)),
        ("operation", blind, 99, 0, vec![], told(Errno::Inval)),
        ("pointer", blind, vcpu::OP_REGISTER_VCPU_INFO, 0, vec![], told(Errno::Fault)),
        ("offset, page", plain, vcpu::OP_REGISTER_VCPU_INFO, 0, info(HOLE, 4056), told(Errno::NxIo)),
        ("alignment, page", plain, vcpu::OP_REGISTER_VCPU_INFO, 0, info(HOLE, 4), told(Errno::NxIo)),
        ("page", plain, vcpu::OP_REGISTER_VCPU_INFO, 0, info(HOLE, 8), told(Errno::Inval)),
        ("pointer", blind, vcpu::OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, vec![], told(Errno::Fault)),
    ] {
        let told = who.call(number::VCPU_OP, [op, vcpu, 0, 0, 0], &argument);
        assert_eq!(told, outcome, "{what}");
    }
    check(
        number::SCHED_OP,
        &[
            ("pointer", blind, sched::OP_SHUTDOWN, vec![], told(Errno::Fault)),
            ("pointer", blind, sched::OP_POLL, vec![], told(Errno::Fault)),
            ("count, list", plain, sched::OP_POLL, words(&[&BAD, &[129]]), told(Errno::Inval)),
            ("list", plain, sched::OP_POLL, words(&[&BAD, &[1]]), told(Errno::Fault)),
            ("pointer", &scene.blind_plain, sched::OP_REMOTE_SHUTDOWN, vec![], told(Errno::Fault)),
            ("nobody, reason", plain, sched::OP_REMOTE_SHUTDOWN, vec![ABSENT, 99], told(Errno::Srch)),
            ("DOMID_SELF", control, sched::OP_REMOTE_SHUTDOWN, vec![SELF, 0], told(Errno::Srch)),
            ("no right, reason", plain, sched::OP_REMOTE_SHUTDOWN, vec![control.id(), 99], told(Errno::Perm)),
            ("oneself", plain, sched::OP_REMOTE_SHUTDOWN, vec![plain.id(), 0], told(Errno::Perm)),
            ("pointer", blind, sched::OP_WATCHDOG, vec![], told(Errno::Fault)),
            ("number", plain, sched::OP_WATCHDOG, vec![3, 1], told(Errno::Inval)),
            ("not set", plain, sched::OP_WATCHDOG, vec![1, 1], told(Errno::Inval)),
            ("no right", &scene.blind_plain, sched::OP_PIN_OVERRIDE, vec![], told(Errno::Perm)),
        ],
    );
}

#[test]
#[rustfmt::skip]
fn control_operations() {
    let scene = Scene::new();
    let (control, plain, blind) = (&scene.control, &scene.plain, &scene.blind_plain);
    let other = plain.id();
    let form = |version: u32, command: u32, dom: u32, body: &[u32]| {
        words(&[&[command, version, dom, 0], body])
    };
    let now = domctl::INTERFACE_VERSION;
    let mapping = |mfn: [u32; 2], count: u32| words(&[&[0, 0], &mfn, &[count, 0, 1, 0]]);
    let vuart = |op: u32, pad: u32| vec![op, 1, 0, 0, pad << 16, 0];
    for (what, who, argument, outcome) in [
        ("pointer", blind, vec![], told(Errno::Fault)),
        ("version", plain, form(now + 1, 2, ABSENT, &[]), told(Errno::Acces)),
        ("nobody", plain, form(now, domctl::OP_DESTROYDOMAIN, ABSENT, &[]), told(Errno::Srch)),
        ("no right", plain, form(now, domctl::OP_DESTROYDOMAIN, other, &[]), told(Errno::Perm)),
        ("no right", plain, form(now, domctl::OP_CREATEDOMAIN, ABSENT, &[]), told(Errno::Perm)),
        ("oneself", control, form(now, domctl::OP_PAUSEDOMAIN, control.id(), &[]), told(Errno::Inval)),
        ("oneself", control, form(now, domctl::OP_DESTROYDOMAIN, control.id(), &[]), told(Errno::Inval)),
        ("oneself", control, form(now, domctl::OP_GETVCPUCONTEXT, control.id(), &[0; 4]), told(Errno::Inval)),
        ("nobody, operation", control, form(now, 9999, ABSENT, &[]), told(Errno::Srch)),
        ("operation", control, form(now, 9999, other, &[]), told(Errno::NoSys)),
        ("number in use, flags", control, form(now, domctl::OP_CREATEDOMAIN, other, &[0; 20]), told(Errno::Exist)),
        ("flags", control, form(now, domctl::OP_CREATEDOMAIN, 0, &[0; 20]), told(Errno::Inval)),
        ("wrap, count", control, form(now, domctl::OP_MEMORY_MAPPING, other, &mapping([u32::MAX; 2], 65)), told(Errno::Inval)),
        ("beyond all, count", control, form(now, domctl::OP_MEMORY_MAPPING, other, &mapping([1 << 28, 0], 65)), told(Errno::Inval)),
        ("count", control, form(now, domctl::OP_MEMORY_MAPPING, other, &mapping([1, 0], 65)), told(Errno::TooBig)),
        ("no right to devices", control, form(now, domctl::OP_MEMORY_MAPPING, other, &mapping([1, 0], 1)), told(Errno::Perm)),
        ("padding", control, form(now, domctl::OP_VUART_OP, other, &vuart(0, 1)), told(Errno::Inval)),
        ("operation", control, form(now, domctl::OP_VUART_OP, other, &vuart(1, 0)), told(Errno::Inval)),
        ("kind", control, form(now, domctl::OP_VUART_OP, other, &vuart(0, 0)), told(Errno::OpNotSupp)),
        ("vCPU, affinity", control, form(now, domctl::OP_SETVCPUAFFINITY, other, &[9, 0]), told(Errno::Inval)),
        ("empty, then a bad pointer", control, form(now, domctl::OP_SETVCPUAFFINITY, other, &words(&[&[0, 3], &LIST, &[8, 0], &BAD, &[8, 0]])), told(Errno::Inval)),
    ] {
        let told = who.call(number::DOMCTL, [0; 5], &argument);
        assert_eq!(told, outcome, "domctl: {what}");
    }
    let form = |version: u32, command: u32, body: &[u32]| words(&[&[command, version], body]);
    let now = sysctl::INTERFACE_VERSION;
    let pool = |op: u32, number: u32, dom: u32| vec![op, number, 0, dom, 0, 0];
    let rate = |cmd: u32, pool: u32, scheduler: u32| vec![pool, scheduler, cmd, 0, 0];
    for (what, who, argument, outcome) in [
        ("pointer", blind, vec![], told(Errno::Fault)),
        ("version", plain, form(now + 1, 3, &[]), told(Errno::Acces)),
        ("no right", plain, form(now, 9999, &[]), told(Errno::Perm)),
        ("operation", control, form(now, 9999, &[]), told(Errno::NoSys)),
        ("DOMID_SELF, pool", control, form(now, sysctl::OP_CPUPOOL_OP, &pool(6, 99, SELF)), told(Errno::Srch)),
        ("oneself, pool", control, form(now, sysctl::OP_CPUPOOL_OP, &pool(6, 99, control.id())), told(Errno::Perm)),
        ("nobody, pool", control, form(now, sysctl::OP_CPUPOOL_OP, &pool(6, 99, ABSENT)), told(Errno::Srch)),
        ("pool", control, form(now, sysctl::OP_CPUPOOL_OP, &pool(6, 99, other)), told(Errno::NoEnt)),
        ("operation", control, form(now, sysctl::OP_CPUPOOL_OP, &pool(99, 99, ABSENT)), told(Errno::NoSys)),
        ("command, pool", control, form(now, sysctl::OP_SCHEDULER_OP, &rate(9, 99, 9)), told(Errno::Inval)),
        ("pool, scheduler", control, form(now, sysctl::OP_SCHEDULER_OP, &rate(1, 99, 9)), told(Errno::Srch)),
        ("scheduler", control, form(now, sysctl::OP_SCHEDULER_OP, &rate(1, 0, 9)), told(Errno::Inval)),
    ] {
        let told = who.call(number::SYSCTL, [0; 5], &argument);
        assert_eq!(told, outcome, "sysctl: {what}");
    }
}

#[test]
#[rustfmt::skip]
fn the_file_system() {
    let scene = Scene::new();
    let (control, plain, blind) = (&scene.control, &scene.plain, &scene.blind);
    let root = [u32::from_le_bytes(*b"/\0\0\0")];
    let none = [u32::from_le_bytes(*b"/a\0\0")];
    for (what, who, op, length, buffer, path, outcome) in [
        ("no right", plain, 99, 0, 0, &root, told(Errno::Perm)),
        ("arguments", control, hypfs::OP_GET_VERSION, 1, 0, &root, told(Errno::Inval)),
        ("length, operation", blind, 99, 1 << 16, 0, &root, told(Errno::Inval)),
        ("pointer, operation", blind, 99, 2, 0, &root, told(Errno::Fault)),
        ("end, operation", control, 99, 1, 0, &root, told(Errno::Inval)),
        ("two ends, operation", control, 99, 3, 0, &root, told(Errno::Inval)),
        ("entry, operation", control, 99, 3, 0, &none, told(Errno::NoEnt)),
        ("operation", control, 99, 2, 0, &root, told(Errno::OpNotSupp)),
        ("entry, read-only", control, hypfs::OP_WRITE_CONTENTS, 3, 0, &none, told(Errno::NoEnt)),
        ("read-only", control, hypfs::OP_WRITE_CONTENTS, 2, 0, &root, told(Errno::Acces)),
        ("room for the head", control, hypfs::OP_READ, 2, 8, &root, told(Errno::Inval)),
        ("room", control, hypfs::OP_READ, 2, 16, &root, told(Errno::NoBufs)),
    ] {
        let told = who.call(number::HYPFS_OP, [op, 0, length, 0, buffer], path);
        assert_eq!(told, outcome, "{what}");
    }
}

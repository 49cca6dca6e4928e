//! Aborts that a guest takes in stage 2: emulated devices, and unmapped addresses.
//!
//! All memory of a domain is mapped eagerly, so a stage-2 fault is an access either to the emulated distributor or to
//! an unmapped address, which the guest takes as an external abort; or it is a write that is to be noted
//! (`mem::p2m::log_dirty`).
//!
//! HPFAR holds the faulting page's full number on hardware, but only the low 32 bits of its address on qemu-system-arm.
//! An address at or above 4 GiB may then look like the distributor. So the first access through a virtual page is
//! translated again from its virtual address, and the vCPU remembers the page. A guest that later maps a page whose low
//! 32 bits are the distributor's at that virtual address misleads only itself.

use alloc::sync::Arc;

use armv7::addr::{Gfn, GuestVa, PAGE_SHIFT};
use armv7::errata;
use armv7::gic;
use armv7::guest::{self, Access, GuestContext, Untranslated};
use armv7::smp;
use armv7::syndrome::{
    self, DataAbort, DataAccess, FaultKind, InstrAbort, MemoryDirection, Width, psr,
};

use super::inject::{Exception, raise_unless_endless, skip};
use super::serror;
use crate::call::guest_ptr::copy_in;
use crate::cpu;
use crate::domain::interface::{HardwareLrs, deliver};
use crate::domain::shutdown;
use crate::domain::uart as device;
use crate::domain::{Domain, GicMap};
use crate::guest_warn;
use crate::irq;
use crate::mem::p2m;
use crate::passthrough;
use crate::vcpu::Vcpu;
use crate::vgic::{HostOp, HostWork, Vgic};

/// One past the last distributor register (IHI 0048B 4.1.2); the rest of the region is RAZ/WI.
const REGISTERS_END: u32 = 0x1000;

/// Performs an access of the loaded guest to its distributor. Returns false if the access is to another address or
/// refused.
pub fn emulate(
    domain: &Arc<Domain>,
    vcpu: &Vcpu,
    context: &mut GuestContext,
    mut hsr: u32,
) -> bool {
    let page = guest::fault_page().wrapping_sub(domain.gic.first_page);
    if page >= domain.gic.pages {
        return false;
    }
    let va = guest::fault_va();
    if va >> PAGE_SHIFT != vcpu.distributor_page() {
        match verify(domain, vcpu, context, va, hsr) {
            Some(verified) => hsr = verified,
            None => return false,
        }
    }
    let Some((access, direction)) = syndrome::emulated_access(hsr) else {
        return false;
    };
    let offset = page << PAGE_SHIFT | va & 0xFFF;
    let done = match direction {
        MemoryDirection::Read => match read(domain, vcpu, offset, access.width) {
            Some(value) => {
                guest::set_register(context, access.rt, access.extend(value));
                true
            }
            None => false,
        },
        MemoryDirection::Write => {
            let value = guest::register(context, access.rt);
            write(domain, vcpu, offset, access.width, value)
        }
    };
    if done {
        skip(context, hsr);
    }
    done
}

/// Performs an access of the loaded guest to its emulated UART, whose registers are in `page`. Returns false if the access is to another address or
/// refused.
#[cold]
fn uart(domain: &Domain, page: u32, context: &mut GuestContext, va: u32) -> bool {
    let hsr = guest::syndrome();
    let Some((_, direction)) = syndrome::emulated_access(hsr) else {
        return false;
    };
    // An address at or above 4 GiB may look like it, as with the distributor.
    let gfn = guest::translate(va, wanted(direction));
    if gfn.is_ok_and(|gfn| gfn.raw() != page) {
        return false;
    }
    let Some(hsr) = believed(domain, context, hsr) else {
        return false;
    };
    let Some((access, direction)) = syndrome::emulated_access(hsr) else {
        return false;
    };
    let offset = va & 0xFFF;
    let done = match direction {
        MemoryDirection::Read => match device::read(domain, offset, access.width) {
            Ok(value) => {
                guest::set_register(context, access.rt, access.extend(value));
                true
            }
            Err(_) => false,
        },
        MemoryDirection::Write => {
            let value = guest::register(context, access.rt);
            device::write(domain, offset, access.width, value).is_ok()
        }
    };
    if done {
        skip(context, hsr);
    }
    done
}

/// Returns the access to translate an address for.
const fn wanted(direction: MemoryDirection) -> Access {
    match direction {
        MemoryDirection::Read => Access::Read,
        MemoryDirection::Write => Access::Write,
    }
}

/// Returns the syndrome of an access, where it may misreport a store as the store in the guest's memory describes it.
fn believed(domain: &Domain, context: &GuestContext, hsr: u32) -> Option<u32> {
    let (_, direction) = syndrome::emulated_access(hsr)?;
    match direction {
        MemoryDirection::Write
            if errata::misreports_thumb_stores(smp::midr()) && context.cpsr & psr::T != 0 =>
        {
            store_at(domain, context.pc).map(|store| store.described_in(hsr))
        }
        _ => Some(hsr),
    }
}

/// Returns the syndrome of the access if `va` translates to the distributor, and remembers its page. Returns `None` for
/// an address above 4 GiB that looks like the distributor.
///
/// On processors with unreliable syndromes no page is remembered, so that every access is decoded here.
#[cold]
#[inline(never)]
fn verify(domain: &Domain, vcpu: &Vcpu, context: &GuestContext, va: u32, hsr: u32) -> Option<u32> {
    let (_, direction) = syndrome::emulated_access(hsr)?;
    // If `va` does not translate, the guest has changed its tables since, and the syndrome was true at the fault.
    let gfn = guest::translate(va, wanted(direction)).ok();
    if gfn.is_some_and(|gfn| !is_distributor(domain.gic, gfn)) {
        return None;
    }
    if errata::misreports_thumb_stores(smp::midr()) {
        return believed(domain, context, hsr);
    }
    if gfn.is_some() {
        vcpu.remember_distributor_page(va >> PAGE_SHIFT);
    }
    Some(hsr)
}

/// Returns the Thumb store at `pc`, read from guest memory. A guest that has changed it since misleads only itself.
fn store_at(domain: &Domain, pc: u32) -> Option<DataAccess> {
    let half = |at: u32| {
        let mut bytes = [0; 2];
        copy_in(domain, GuestVa(at), &mut bytes).ok()?;
        Some(u16::from_le_bytes(bytes))
    };
    let first = half(pc)?;
    let second = match errata::is_wide(first) {
        true => half(pc.wrapping_add(2))?,
        false => 0,
    };
    errata::thumb_store(first, second)
}

/// Returns whether a guest frame belongs to the emulated distributor.
fn is_distributor(gic: GicMap, gfn: Gfn) -> bool {
    gfn.raw().wrapping_sub(gic.first_page) < gic.pages
}

/// Handles a data abort of the loaded guest that is no emulated access.
#[cold]
pub fn data(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, context: &mut GuestContext, fault: &DataAbort) {
    if fault.fault.is_asynchronous() {
        return serror::arrived(domain, vcpu);
    }
    let va = guest::fault_va();
    let page = domain.uart().map(|uart| uart.page);
    let page = page.filter(|page| guest::fault_page() == *page);
    if page.is_some_and(|page| uart(domain, page, context, va)) {
        return;
    }
    // Cache maintenance is reported as a write, but needs no write permission.
    let access = match fault.direction {
        MemoryDirection::Write if !fault.cache_maintenance => Wanted::Write,
        _ => Wanted::Read,
    };
    if !may_try_again(domain, va, access, fault.fault, fault.s1ptw) {
        let page = guest::fault_page();
        guest_warn!(
            domain,
            vcpu,
            "{:?} of {va:#010x} (page {page:#x}) at pc {:#010x}: {}",
            fault.direction,
            context.pc,
            why(fault.fault)
        );
        let exception = Exception::DataAbort {
            address: va,
            direction: fault.direction,
        };
        give(domain, vcpu, context, exception);
    }
}

/// Handles a prefetch abort of the loaded guest.
#[cold]
pub fn fetch(
    domain: &Arc<Domain>,
    vcpu: &Arc<Vcpu>,
    context: &mut GuestContext,
    fault: &InstrAbort,
) {
    let address = guest::fetch_fault_va();
    if !may_try_again(domain, address, Wanted::Execute, fault.fault, fault.s1ptw) {
        guest_warn!(
            domain,
            vcpu,
            "Prefetch of {address:#010x}: {}",
            why(fault.fault)
        );
        give(domain, vcpu, context, Exception::PrefetchAbort { address });
    }
}

/// Returns the reason of a fault for a message.
fn why(fault: FaultKind) -> &'static str {
    match fault {
        FaultKind::Permission(_) => "not permitted",
        kind if kind.is_stage2_map() => "nothing there",
        kind if kind.is_synchronous_external() => "the memory system refused it",
        _ => "an abort of another kind",
    }
}

/// Injects an abort into the guest. Crashes the domain if its handler cannot run, as the vCPU would take the same abort
/// forever. Only the guest's kernel can cause that, as user mode cannot move the vectors (docs/security.md).
fn give(domain: &Arc<Domain>, vcpu: &Vcpu, context: &mut GuestContext, exception: Exception) {
    if raise_unless_endless(context, exception) {
        return;
    }
    guest_warn!(
        domain,
        vcpu,
        "pc {:08x} cpsr {:08x} lr_usr {:08x}: its handler of aborts cannot be run",
        context.pc,
        context.cpsr,
        context.lr_usr
    );
    guest_warn!(domain, vcpu, "r0-r12 {:08x?}", context.r);
    shutdown::crash(domain, format_args!("its handler of aborts cannot be run"));
}

/// The access that faulted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Read,
    Write,
    Execute,
}

/// Returns whether to retry the access: another CPU was changing the p2m (break before make) when it faulted, or the
/// guest its own tables.
///
/// The p2m is locked before stage 1 is walked, as the walk reads guest memory too and could meet the same missing
/// entry. If the guest's tables still forbid the access, the retry gives the guest its own fault. That holds for faults
/// on a walk too: a write to a copy-on-write page often follows a walk that met another CPU's change.
fn may_try_again(
    domain: &Domain,
    va: u32,
    wanted: Wanted,
    fault: FaultKind,
    on_walk: bool,
) -> bool {
    if !fault.is_stage2_map() {
        return false;
    }
    let access = match wanted {
        Wanted::Read | Wanted::Execute => Access::Read,
        Wanted::Write => Access::Write,
    };
    let mut p2m = domain.p2m.lock();
    let gfn = match guest::translate(va, access) {
        Ok(gfn) => gfn,
        Err(Untranslated::ByGuest) => return true,
        Err(Untranslated::TablesMissing) => return false,
    };
    if on_walk {
        return true;
    }
    let Some(entry) = p2m.find(gfn) else {
        return false;
    };
    // Cache maintenance that needs the right to write counts as a write, too, or it would fault for ever.
    let denied = matches!(fault, FaultKind::Permission(_)) && wanted != Wanted::Execute;
    if denied && entry.kind.catches_writes() {
        p2m.count_fault();
        p2m.note_write(gfn);
        return true;
    }
    // A mapped device that faults is an external abort; `allows` and `is_own_ram` apply to RAM.
    match wanted {
        Wanted::Read => entry.kind.allows(p2m::Access::Read),
        Wanted::Write => entry.kind.allows(p2m::Access::Write),
        Wanted::Execute => entry.kind.is_own_ram(),
    }
}

#[inline(always)]
fn read(domain: &Domain, vcpu: &Vcpu, offset: u32, width: Width) -> Option<u32> {
    if offset >= REGISTERS_END {
        return Some(0);
    }
    if Vgic::is_stale(offset) {
        freshen(domain, vcpu, offset);
    }
    domain.vgic.lock().read(vcpu.id, offset, width).ok()
}

#[inline(always)]
fn write(domain: &Domain, vcpu: &Vcpu, offset: u32, width: Width, value: u32) -> bool {
    if offset >= REGISTERS_END {
        return true;
    }
    if Vgic::is_stale(offset) {
        freshen(domain, vcpu, offset);
    }
    if let Some(first) = Vgic::first_enabled(offset)
        && irq::unowned(first, value) != 0
        && domain.rights.hardware
    {
        passthrough::give_unowned(domain, first, value);
    }
    let mut vgic = domain.vgic.lock();
    let effects = vgic.write(vcpu.id, offset, width, value);
    let Ok(effects) = effects else {
        return false;
    };
    if let Some(work) = effects.host() {
        at_host(domain, &vgic, &work);
    }
    deliver(domain, vgic, effects.kick);
    true
}

/// Updates the banks before an access to a register that shows list registers' state.
#[cold]
#[inline(never)]
fn freshen(domain: &Domain, vcpu: &Vcpu, offset: u32) {
    if let Some(gic) = gic::get() {
        let mut vgic = domain.vgic.lock();
        let kick = vgic.freshen(vcpu.id, offset, &mut HardwareLrs(gic));
        drop(vgic);
        domain.kick(kick);
    }
}

/// Applies a guest's change of its routed interrupts to the physical distributor.
fn at_host(domain: &Domain, vgic: &Vgic, work: &HostWork) {
    let Some(gic) = gic::get() else { return };
    for (virq, pirq) in vgic.routes(work.first, work.mask) {
        let intid = u32::from(pirq.raw());
        let target = || {
            let vcpu = vgic.target_of(virq).and_then(|id| domain.vcpu(id));
            let home = vcpu.and_then(|vcpu| vcpu.home()).map(cpu::target_mask);
            // Its last CPU may be off.
            home.filter(|mask| *mask != 0)
                .unwrap_or_else(|| cpu::target_mask(smp::this_cpu()))
        };
        match work.op {
            HostOp::Enable => {
                gic.dist.set_trigger(intid, vgic.trigger_of(virq));
                gic.dist.set_targets(intid, target());
                gic.dist.enable(intid);
            }
            HostOp::Disable => gic.dist.disable(intid),
            HostOp::ClearPending => gic.dist.clear_pending(intid),
            HostOp::Retarget => gic.dist.set_targets(intid, target()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_distributor;
    use crate::domain::GicMap;
    use armv7::addr::Gfn;

    #[test]
    fn an_address_above_4_gib_is_not_the_distributor_though_its_low_half_is() {
        let gic = GicMap {
            first_page: 0x8000,
            pages: 0x10,
        };
        let is_distributor = |n| is_distributor(gic, Gfn::new(n).unwrap());
        assert!(is_distributor(0x8000) && is_distributor(0x800F));
        assert!(!is_distributor(0x7FFF) && !is_distributor(0x8010));
        for high in 1..=0xFF {
            assert!(!is_distributor(high << 20 | 0x8000));
        }
    }
}

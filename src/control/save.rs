//! A domain beside its memory as an image (`crate::save`), and a new domain made of one.
//!
//! Reading halts the vCPUs until all their registers are out of the hardware. Setting is for a domain that is paused and has
//! never run: everything is found right, and every page that is needed is pinned, before anything changes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use armv7::addr::Gfn;
use armv7::features;
use armv7::gic::VirtualInterface;
use armv7::guest::is_guest_mode;
use armv7::pmu;
use armv7::timer::VirtualTimer;
use zerocopy::IntoBytes;

use super::request::Request;
use super::{again, exclusive};
use crate::abi::domctl::{HvmContext, HvmContextPartial};
use crate::abi::event_channel::TWO_LEVEL_CHANNELS;
use crate::call::guest_ptr::{copy_in, copy_out};
use crate::call::{Outcome, Reply};
use crate::cpu;
use crate::domain::{Domain, GuestPage, Life};
use crate::emulate::timer::PhysicalTimer;
use crate::error::Errno;
use crate::guest_warn;
use crate::passthrough;
use crate::save::{
    DomainState, Header, Image, NOWHERE, Place, RunStatePlace, Shape, Type, VcpuImage, VcpuState,
    Writer, Wrong, image,
};
use crate::sched;
use crate::time::{self, Ticks};
use crate::vcpu::{GuestCopy, Registers, Vcpu, halt};
use crate::wallclock;

/// Most words of the ports of an image: two of each port of the two-level ABI, behind the descriptor.
const MOST_OF_PORTS: usize = 2 + 2 * TWO_LEVEL_CHANNELS as usize;

/// Returns how many of what the domain has.
fn shape(domain: &Domain) -> Shape {
    Shape {
        vcpus: domain.vcpus().len() as u32,
        shared_banks: domain.vgic.lock().shared_banks(),
        monitors: domain.monitors == pmu::Access::Native,
    }
}

fn header(shape: Shape) -> Header {
    Header::new(shape, time::clock().hz(), features::identity())
}

/// Returns the domain named, which is another one and can be saved.
fn subject(request: &Request<'_>) -> Result<Arc<Domain>, Errno> {
    let domain = request.other()?;
    if let Some(device) = passthrough::device_of(domain.id) {
        guest_warn!(
            request.caller.domain,
            request.caller.vcpu,
            "{domain} cannot be saved: it has {device}"
        );
        return Err(Errno::Inval);
    }
    if domain.uart().is_some() {
        guest_warn!(
            request.caller.domain,
            request.caller.vcpu,
            "{domain} cannot be saved: it has an emulated UART"
        );
        return Err(Errno::Inval);
    }
    match may_be_saved(&domain) {
        true => Ok(domain),
        false => Err(Errno::Inval),
    }
}

/// Returns whether the records hold all of a domain: it has its vCPUs, no device or memory of the machine's and no emulated
/// UART, and is not being destroyed.
fn may_be_saved(domain: &Domain) -> bool {
    let alive = domain.state.lock().life == Life::Alive;
    let has_devices = domain.rights.hardware || domain.vgic.lock().has_devices();
    alive
        && !domain.is_fixed()
        && !has_devices
        && domain.uart().is_none()
        && !domain.vcpus().is_empty()
}

/// Answers the image of a domain, or its size.
pub fn get(request: &Request<'_>) -> Outcome {
    let domain = subject(request)?;
    let mut op: HvmContext = request.body()?;
    let size = 4 * Writer::words_of(&shape(&domain)) as u32;
    if op.buffer.is_null() {
        op.size = size;
        return request.write_back(&op);
    }
    if op.size < size {
        return Err(Errno::NoSpc);
    }
    let buffer = op.buffer.to_va().ok_or(Errno::Fault)?;
    let Some(words) = collect(&domain)? else {
        return again(request.args);
    };
    copy_out(request.caller.domain, buffer, words.as_bytes())?;
    op.size = size;
    request.write_back(&op)
}

/// Answers the body of one record of a domain's image, or its size.
pub fn get_one(request: &Request<'_>) -> Outcome {
    let domain = subject(request)?;
    let mut op: HvmContextPartial = request.body()?;
    let shape = shape(&domain);
    let kind = Type::new(op.kind).ok_or(Errno::NoEnt)?;
    if op.instance >= kind.instances(&shape) {
        return Err(Errno::NoEnt);
    }
    let size = 4 * kind.words() as u64;
    if op.buffer.is_null() {
        op.size = size;
        return request.write_back(&op);
    }
    if op.size < size {
        return Err(Errno::NoBufs);
    }
    let buffer = op.buffer.to_va().ok_or(Errno::Fault)?;
    let Some(words) = collect(&domain)? else {
        return again(request.args);
    };
    let saved = image(&words, shape, &header(shape)).map_err(|_| Errno::NoData)?;
    let body = saved.body(kind, op.instance);
    copy_out(request.caller.domain, buffer, body.as_bytes())?;
    op.size = size;
    request.write_back(&op)
}

/// Returns the image of a domain; `None` while somebody else manages domains, or some vCPU's registers are still in a CPU,
/// which was asked to save them. Until it answers something the vCPUs stay halted.
fn collect(domain: &Domain) -> Result<Option<Vec<u32>>, Errno> {
    let Some(_exclusive) = exclusive() else {
        return Ok(None);
    };
    let mut unloaded = true;
    for vcpu in domain.vcpus() {
        vcpu.halt(halt::INSPECTED);
        if let Some(cpu) = sched::lock().unload(vcpu.unit) {
            cpu::repick(cpu);
            unloaded = false;
        }
    }
    let words = match unloaded {
        true => write(domain),
        false => Ok(None),
    };
    if !matches!(words, Ok(None)) {
        for vcpu in domain.vcpus() {
            vcpu.unhalt(halt::INSPECTED);
        }
    }
    words
}

/// Writes the image of a domain of which no vCPU is in a CPU; `None` when one is just being left.
fn write(domain: &Domain) -> Result<Option<Vec<u32>>, Errno> {
    let shape = shape(domain);
    let mut writer = Writer::new(&shape).ok_or(Errno::NoMem)?;
    writer.fields(Type::Header, 0, &mut header(shape));
    writer.fields(Type::Domain, 0, &mut domain_state(domain));
    let vgic = domain.vgic.lock();
    for n in 0..shape.shared_banks {
        let mut words = vgic.shared_words(n).ok_or(Errno::NoData)?;
        writer.record(Type::Shared, n, |show| words.iter_mut().for_each(show));
    }
    drop(vgic);
    for (n, vcpu) in (0..).zip(domain.vcpus()) {
        // One that is being switched on has its new registers only when it runs.
        if vcpu.restart.lock().is_some() {
            return Err(Errno::Busy);
        }
        let Some(mut registers) = vcpu.registers.try_lock() else {
            return Ok(None);
        };
        write_vcpu(&mut writer, domain, n, vcpu, &mut registers, shape);
    }
    Ok(Some(writer.finish()))
}

fn write_vcpu(
    writer: &mut Writer,
    domain: &Domain,
    n: u32,
    vcpu: &Vcpu,
    registers: &mut Registers,
    shape: Shape,
) {
    writer.record(Type::Cpu, n, |show| {
        registers.context.each_word(show);
        registers.cpu.each_cpu_word(show);
    });
    writer.record(Type::Vfp, n, |show| {
        registers.cpu.each_vfp_word(show);
    });
    writer.fields(Type::Vcpu, n, &mut vcpu_state(domain, vcpu, registers));
    let mut words = domain.vgic.lock().private_words(vcpu.id);
    writer.record(Type::Interrupts, n, |show| words.iter_mut().for_each(show));
    if shape.monitors {
        writer.record(Type::Monitors, n, |show| {
            registers.cpu.each_monitor_word(show);
        });
    }
}

fn domain_state(domain: &Domain) -> DomainState {
    let counter = time::now().0.wrapping_sub(domain.cntvoff());
    let time = wallclock::now();
    let forwarding = domain.vgic.lock().is_on();
    let fifo = domain.events.lock().is_fifo();
    let watchdog = domain.watchdogs.lock().iter().any(Option::is_some);
    let maps_grants = domain.grants.lock().mappings() > 0;
    let state = domain.state.lock();
    DomainState {
        counter,
        time,
        shared_info: state.shared_info_gfn.map_or(NOWHERE, Gfn::raw),
        forwarding,
        runstate_flag: state.runstate_flag,
        fifo,
        watchdog,
        maps_grants,
    }
}

fn vcpu_state(domain: &Domain, vcpu: &Vcpu, registers: &Registers) -> VcpuState {
    let (virtual_control, virtual_compare) = registers.cpu.timer.registers();
    let (physical_control, compare) = vcpu.physical_timer.lock().registers();
    let (vmcr, apr) = registers.interface.registers();
    let info = domain.state.lock().vcpu_info.get(vcpu.id.index()).copied();
    let info = info
        .flatten()
        .map_or(Place::default(), |(gfn, offset)| Place {
            gfn: gfn.raw(),
            offset,
        });
    let copy = vcpu.runstate.lock().place();
    let raw = |gfn: Option<Gfn>| gfn.map_or(NOWHERE, Gfn::raw);
    let nowhere = RunStatePlace {
        second: NOWHERE,
        ..RunStatePlace::default()
    };
    let runstate = copy.map_or(nowhere, |([first, second], offset)| RunStatePlace {
        first: Place {
            gfn: raw(first),
            offset: offset as u32,
        },
        second: raw(second),
    });
    VcpuState {
        online: vcpu.is_online(),
        async_abort: registers.cpu.awaits_async_abort(),
        virtual_control,
        virtual_compare,
        physical_control,
        physical_distance: compare.wrapping_sub(time::now().0),
        vmcr,
        apr,
        info,
        runstate,
    }
}

/// Makes a domain that is paused and has never run what an image says.
pub fn set(request: &Request<'_>) -> Outcome {
    let domain = subject(request)?;
    let op: HvmContext = request.body()?;
    let shape = shape(&domain);
    let size = 4 * (Writer::words_of(&shape) + MOST_OF_PORTS) as u32;
    let buffer = op.buffer.to_va().ok_or(Errno::Fault)?;
    // One of another shape is read as far as it goes, to be told by its header.
    let bytes = op.size.min(size) & !3;
    let mut words = Vec::new();
    let count = bytes as usize / 4;
    words.try_reserve_exact(count).map_err(|_| Errno::NoMem)?;
    words.resize(count, 0);
    copy_in(
        request.caller.domain,
        buffer,
        words.as_mut_slice().as_mut_bytes(),
    )?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    let paused = domain.state.lock().pause_count > 0;
    if !paused || domain.has_run() {
        return Err(Errno::Busy);
    }
    if op.size > size {
        // The header says why, or it is something behind the end.
        words.push(0);
    }
    let made = image(&words, shape, &header(shape))
        .and_then(|image| Plan::new(&domain, &image).map(|plan| (image, plan)));
    match made {
        Ok((image, plan)) => {
            plan.carry_out(&domain, &image);
            Ok(Reply::OK)
        }
        Err(wrong) => {
            log::warn!("{domain}: its saved state is refused: {wrong}");
            Err(match wrong.missing {
                true => Errno::NoData,
                false => Errno::Inval,
            })
        }
    }
}

/// Everything that an image needs and that may fail.
struct Plan {
    vcpus: Vec<VcpuPlan>,
}

struct VcpuPlan {
    interface: VirtualInterface,
    info: Option<(GuestPage, Gfn, u32)>,
    copy: Option<GuestCopy>,
}

impl Plan {
    /// Checks all that an image says, and pins the pages that it names.
    fn new(domain: &Domain, image: &Image<'_>) -> Result<Self, Wrong> {
        let domain_wrong = |fault| Wrong::record(Type::Domain, 0, fault);
        let shared = domain.state.lock().shared_info_gfn;
        if shared.map_or(NOWHERE, Gfn::raw) != image.domain.shared_info {
            return Err(domain_wrong("shared_info is elsewhere"));
        }
        let vgic = domain.vgic.lock();
        for n in 0..vgic.shared_banks() {
            let right = image
                .shared(n)
                .try_into()
                .is_ok_and(|words| vgic.may_be_shared(n, words));
            if !right {
                return Err(Wrong::record(Type::Shared, n, "no state of interrupts"));
            }
        }
        for n in image.vcpus() {
            let words = image.vcpu(n).interrupts.try_into();
            if !words.is_ok_and(|words| vgic.may_be_private(words)) {
                return Err(Wrong::record(Type::Interrupts, n, "no state of interrupts"));
            }
        }
        drop(vgic);
        let ports = image.body(Type::Ports, 0);
        let checked = domain.events.lock().restore(ports, false);
        if let Err(port) = checked {
            return Err(Wrong::record(Type::Ports, port, "no state of a port"));
        }
        let mut vcpus = Vec::new();
        vcpus
            .try_reserve_exact(domain.vcpus().len())
            .map_err(|_| domain_wrong("no memory"))?;
        for n in image.vcpus() {
            vcpus.push(VcpuPlan::new(domain, n, &image.vcpu(n))?);
        }
        Ok(Self { vcpus })
    }

    /// Makes the domain what the image says. Nothing of it fails.
    fn carry_out(self, domain: &Domain, image: &Image<'_>) {
        let now = time::now();
        domain.set_cntvoff(now.0.wrapping_sub(counter_now(&image.domain)));
        wallclock::publish(domain);
        domain.state.lock().runstate_flag = image.domain.runstate_flag;
        let mut vgic = domain.vgic.lock();
        vgic.set_on(image.domain.forwarding);
        for n in 0..vgic.shared_banks() {
            if let Ok(words) = image.shared(n).try_into() {
                // No vCPU of the domain runs, so none is to be kicked.
                let _ = vgic.set_shared(n, words);
            }
        }
        drop(vgic);
        for ((n, vcpu), plan) in image.vcpus().zip(domain.vcpus()).zip(self.vcpus) {
            let saved = image.vcpu(n);
            if let Ok(words) = saved.interrupts.try_into() {
                let _ = domain.vgic.lock().set_private(vcpu.id, words);
            }
            vcpu.runstate.lock().set_flagged(image.domain.runstate_flag);
            plan.carry_out(domain, vcpu, &saved, now);
        }
        let ports = image.body(Type::Ports, 0);
        let opened = domain.events.lock().restore(ports, true);
        if let Ok(notify) = opened {
            domain.notify(notify);
        }
    }
}

/// Returns what a saved virtual counter reads now: it went on as the time of day did, and never back.
fn counter_now(saved: &DomainState) -> u64 {
    let passed = wallclock::now().saturating_sub(saved.time);
    let ticks = time::clock().ticks(time::Nanos(passed));
    saved.counter.wrapping_add(ticks.0)
}

impl VcpuPlan {
    fn new(domain: &Domain, n: u32, saved: &VcpuImage<'_>) -> Result<Self, Wrong> {
        /// Where CPSR is among the words.
        const CPSR: usize = 15;
        let state = &saved.state;
        let cpsr = saved.cpu.get(CPSR).copied().unwrap_or(0);
        if !is_guest_mode(cpsr) {
            return Err(Wrong::record(Type::Cpu, n, "CPSR has no mode of a guest"));
        }
        let wrong = |fault| Wrong::record(Type::Vcpu, n, fault);
        let interface = VirtualInterface::new(state.vmcr, state.apr)
            .ok_or(wrong("bits of GICH_VMCR that there are not"))?;
        let info = match state.info.gfn {
            NOWHERE => None,
            gfn => {
                let events = domain.events.lock();
                events
                    .check_vcpu_info(n, state.info.offset)
                    .map_err(|_| wrong("vcpu_info crosses a page"))?;
                drop(events);
                let free = domain.state.lock().vcpu_info.get(n as usize).copied();
                if free.flatten().is_some() {
                    return Err(wrong("vcpu_info has a place already"));
                }
                let (page, gfn) = pin(domain, gfn).ok_or(wrong("vcpu_info is not in RAM"))?;
                Some((page, gfn, state.info.offset))
            }
        };
        let copy = match state.runstate.first.gfn {
            NOWHERE => None,
            _ => Some(copy(domain, &state.runstate).map_err(wrong)?),
        };
        Ok(Self {
            interface,
            info,
            copy,
        })
    }

    fn carry_out(self, domain: &Domain, vcpu: &Vcpu, saved: &VcpuImage<'_>, now: Ticks) {
        let state = &saved.state;
        vcpu.halt(halt::OFFLINE);
        // It has never run, so nobody has them.
        if let Some(mut registers) = vcpu.registers.try_lock() {
            *registers = registers_of(saved, self.interface);
        }
        *vcpu.restart.lock() = None;
        let compare = now.0.wrapping_add(state.physical_distance);
        let timer = PhysicalTimer::new(state.physical_control, compare);
        *vcpu.physical_timer.lock() = timer;
        match timer.deadline() {
            Some(deadline) => vcpu.timers.physical_timer.arm(Ticks(deadline)),
            None => vcpu.timers.physical_timer.disarm(),
        }
        vcpu.runstate.lock().register(self.copy);
        if let Some((page, gfn, offset)) = self.info {
            let number = vcpu.id.raw().into();
            let registered = domain
                .events
                .lock()
                .register_vcpu_info(number, page, offset);
            if let Some(place) = domain.state.lock().vcpu_info.get_mut(vcpu.id.index()) {
                *place = Some((gfn, offset));
            }
            // It was checked that there is none yet.
            if let Ok(notify) = registered {
                domain.notify(notify);
            }
        }
        vcpu.set_initialised(state.online);
        if state.online {
            vcpu.unhalt(halt::OFFLINE);
        }
    }
}

/// Returns the registers that a vCPU's records say.
fn registers_of(saved: &VcpuImage<'_>, interface: VirtualInterface) -> Registers {
    let mut registers = Registers::start(0, 0);
    let mut next = saved.cpu.iter();
    let mut take = |word: &mut u32| *word = next.next().copied().unwrap_or(0);
    registers.context.each_word(&mut take);
    registers.cpu.each_cpu_word(&mut take);
    let mut next = saved.vfp.iter();
    let mut take = |word: &mut u32| *word = next.next().copied().unwrap_or(0);
    registers.cpu.each_vfp_word(&mut take);
    let mut next = saved.monitors.iter();
    let mut take = |word: &mut u32| *word = next.next().copied().unwrap_or(0);
    registers.cpu.each_monitor_word(&mut take);
    let state = &saved.state;
    registers.cpu.timer = VirtualTimer::new(state.virtual_control, state.virtual_compare);
    registers.cpu.set_async_abort(state.async_abort);
    registers.interface = interface;
    registers
}

/// Keeps the page of the domain's own RAM at `gfn`.
fn pin(domain: &Domain, gfn: u32) -> Option<(GuestPage, Gfn)> {
    let page = domain.pin(gfn.into()).ok()?;
    Some((page, Gfn::new(gfn.into())?))
}

/// Pins the pages of a copy of the run-state times.
fn copy(domain: &Domain, place: &RunStatePlace) -> Result<GuestCopy, &'static str> {
    const NO_RAM: &str = "the run-state times are not in RAM";
    let offset = place.first.offset as usize;
    if !GuestCopy::fits(offset, place.second != NOWHERE) {
        return Err("the run-state times leave their page");
    }
    let (first, gfn) = pin(domain, place.first.gfn).ok_or(NO_RAM)?;
    let second = match place.second {
        NOWHERE => None,
        gfn => Some(pin(domain, gfn).ok_or(NO_RAM)?),
    };
    let (second, next) = second.unzip();
    Ok(GuestCopy::new(
        [Some(first), second],
        [Some(gfn), next],
        offset,
    ))
}

#[cfg(test)]
mod tests;

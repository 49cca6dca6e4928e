//! Set-up of this CPU, and start of the other CPUs.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use armv7::admission::Admission;
use armv7::controls::GuestWait;
use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};
use armv7::features::{self, Vfp};
use armv7::gic::{self, Gic};
use armv7::smc::psci::{ALREADY_ON, CPU_ON, NOT_PRESENT};
use armv7::{abort, controls, errata, guest, hypmap, pen, secure, smp, timer};
use krypton::cmdline::{Options, Vwfi};
use krypton::cpu::power::{self, Firmware, Progress};
use krypton::irq::{self, Handler, Owner};
use krypton::options;
use krypton::platform::host_dt::{
    Conduit, CpuInfo, EnableMethod, HostInfo, MonitorsLine, PsciInfo,
};
use krypton::platform::interrupt::Interrupt;
use krypton::trap;
use krypton::{cpu, sched, time};
use spin::Once;

/// The CPUs that are expected.
static ADMISSION: Admission = Admission::new();
/// CPUs that have started, one bit each.
static UP: AtomicU32 = AtomicU32::new(0);
/// Secondary CPUs may enter the main loop.
static GO: AtomicBool = AtomicBool::new(false);
/// MIDR of the boot CPU.
static KIND: AtomicU32 = AtomicU32::new(0);
/// The hypervisor's private interrupts, for CPUs that start later.
static PRIVATE: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
/// The interrupts of the performance monitors, for each CPU to find its own.
static MONITORS: Once<Vec<MonitorsLine>> = Once::new();

/// Sets up vectors, traps and timers of this CPU. Reports registers that did not keep their value, and an abort left
/// pending by the boot loader.
pub fn set_up_cpu(cpu: CpuId) {
    let wait = match options::get().map(|options| options.vwfi) {
        Some(Vwfi::Native) => GuestWait::Native,
        _ => GuestWait::Traps,
    };
    let mismatches = controls::init_cpu(cpu, wait);
    if abort::synchronize() {
        log::warn!("CPU{}: an asynchronous abort was pending", cpu.raw());
    }
    for mismatch in mismatches.into_iter().flatten() {
        log::warn!(
            "CPU{}: {} reads {:#x} after {:#x} was written",
            cpu.raw(),
            mismatch.register,
            mismatch.reads,
            mismatch.wrote
        );
    }
    match features::vfp() {
        Vfp::ThirtyTwo => {}
        Vfp::Sixteen => log::info!("CPU{}: VFP with 16 registers", cpu.raw()),
        Vfp::None => log::info!("CPU{}: no VFP", cpu.raw()),
    }
    for number in errata::left_by_firmware(smp::midr(), guest::actlr()) {
        log::warn!("CPU{}: firmware leaves erratum {number}", cpu.raw());
    }
}

/// Sets this CPU's CNTFRQ to `hz` if firmware left it 0.
pub fn set_frequency(cpu: CpuId, hz: u32) {
    if secure::set_frequency(hz) {
        log::info!("CPU{}: CNTFRQ was 0, now {hz}", cpu.raw());
    }
}

/// Claims the hypervisor's private interrupts.
pub fn set_private_interrupts(maintenance: u32, timer: u32, virtual_timer: u32) {
    let all = [
        (maintenance, Handler::Maintenance),
        (timer, Handler::Timer),
        (virtual_timer, Handler::VirtualTimer),
    ];
    for (slot, (intid, handler)) in PRIVATE.iter().zip(all) {
        if !irq::claim(intid, handler) {
            log::warn!("interrupt {intid} is named twice");
        }
        slot.store(intid, Ordering::Relaxed);
    }
}

/// Claims the interrupts of the performance monitors that nobody else has.
pub fn set_monitors(lines: &[MonitorsLine]) {
    let is_ours = |line: &&MonitorsLine| {
        let intid = line.line.intid;
        let ours = Owner::Hypervisor(Handler::Monitors);
        irq::claim(intid, Handler::Monitors) || irq::owner(intid) == ours
    };
    MONITORS.call_once(|| lines.iter().filter(is_ours).copied().collect());
}

/// Enables the interrupt of this CPU's performance monitors.
fn enable_monitors(cpu: CpuId, gic: &Gic) {
    let own = smp::affinity();
    let mut lines = MONITORS.get().into_iter().flatten();
    let Some(MonitorsLine { line, .. }) = lines.find(|line| line.mpidr == own) else {
        return;
    };
    irq::set_monitors(cpu, line.intid);
    enable_line(gic, line);
}

/// Enables an interrupt of the hypervisor, at this CPU.
pub fn enable_line(gic: &Gic, line: &Interrupt) {
    gic.dist.set_trigger(line.intid, line.trigger);
    gic.dist.prefer(line.intid);
    gic.dist.set_targets(line.intid, gic.dist.target_mask());
    gic.dist.enable(line.intid);
}

/// Enables the hypervisor's private interrupts on this CPU, and that of its performance monitors.
pub fn enable_private_interrupts(cpu: CpuId, gic: &Gic) {
    for slot in &PRIVATE {
        let intid = slot.load(Ordering::Relaxed);
        gic.dist.prefer(intid);
        gic.dist.enable(intid);
    }
    enable_monitors(cpu, gic);
}

/// Starts the other CPUs. Returns all that run. One that does not start is reported and left out.
pub fn start_cpus(host: &HostInfo, options: &Options, gic: &Gic) -> CpuSet {
    let own = smp::affinity();
    let mut online = CpuSet::of(CpuId::BOOT);
    cpu::set_online(CpuId::BOOT, gic.dist.target_mask());
    power::set_on(CpuId::BOOT);
    UP.store(online.bits(), Ordering::SeqCst);
    KIND.store(smp::midr(), Ordering::SeqCst);
    let most = options
        .maxcpus
        .unwrap_or(u32::MAX)
        .clamp(1, MAX_CPUS as u32);
    let ours = host.cpus.iter().find(|info| info.mpidr == own);
    // CPU interfaces of a GIC are in the order of the tree's CPUs.
    let others = host.cpus.iter().enumerate().filter(|(_, info)| {
        let same = ours.is_none_or(|ours| ours.compatible == info.compatible);
        let same = same || options.hmp_unsafe;
        if !same {
            log::warn!(
                "SMP: {} {:#x} is another kind than the boot CPU, left out",
                info.compatible,
                info.mpidr
            );
        }
        same && info.mpidr != own
    });
    for (number, (interface, info)) in (1..most).zip(others) {
        let Some(cpu) = CpuId::new(number) else { break };
        if start(host, gic, cpu, info, interface) {
            online.insert(cpu);
            power::set_on(cpu);
        }
    }
    pen::close();
    allow_switching(host, online);
    log::info!("Brought up {} CPUs", online.len());
    online
}

/// Returns the PSCI that starts a CPU.
fn firmware<'a>(host: &'a HostInfo, info: &CpuInfo) -> Option<&'a PsciInfo> {
    let by_psci = matches!(
        info.enable_method,
        EnableMethod::Psci | EnableMethod::Unsaid
    );
    host.psci
        .as_ref()
        .filter(|psci| by_psci && psci.conduit == Conduit::Smc)
}

/// Starts a CPU by PSCI. Returns PSCI's result.
fn turn_on(psci: &PsciInfo, cpu: CpuId, affinity: u32) -> i32 {
    match pen::start(cpu, affinity, psci.cpu_on) {
        // The tree's function id is for other firmware: QEMU's Midway implements the standard functions.
        rc if rc != 0 && !psci.standard => pen::start(cpu, affinity, CPU_ON),
        rc => rc,
    }
}

/// Firmware's PSCI, for CPUs that start again.
static PSCI: Once<PsciInfo> = Once::new();
/// The counter's value until which the CPU that starts again may arrive.
static ARRIVES_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Allows that the CPUs which PSCI has started are switched off and on.
fn allow_switching(host: &HostInfo, online: CpuSet) {
    let Some(psci) = host.psci else { return };
    let Some(cpu_off) = psci.cpu_off else { return };
    let by_psci = |cpu: &CpuId| {
        let affinity = smp::affinity_of(*cpu);
        let info = host.cpus.iter().find(|info| Some(info.mpidr) == affinity);
        *cpu != CpuId::BOOT && info.is_some_and(|info| firmware(host, info).is_some())
    };
    PSCI.call_once(|| psci);
    power::init(Firmware {
        cpus: online.iter().filter(by_psci).collect(),
        cpu_off,
        start: start_again,
        poll: poll_start,
    });
}

/// Begins to start a CPU that has switched itself off. Returns PSCI's result.
fn start_again(cpu: CpuId) -> i32 {
    let (Some(psci), Some(affinity)) = (PSCI.get(), smp::affinity_of(cpu)) else {
        return NOT_PRESENT;
    };
    UP.fetch_and(!(1 << cpu.raw()), Ordering::SeqCst);
    let end = expect(cpu, time::clock().hz());
    hypmap::map_boot_code();
    let mut result = turn_on(psci, cpu, affinity);
    // It may be on its last instructions.
    while result == ALREADY_ON && timer::counter() < end {
        result = turn_on(psci, cpu, affinity);
    }
    if result != 0 {
        refused(cpu, result);
        end_start();
    }
    result
}

/// Returns how far the start of a CPU is.
fn poll_start(cpu: CpuId) -> Progress {
    let progress = progress(cpu);
    if progress != Progress::Waits {
        end_start();
    }
    progress
}

fn end_start() {
    pen::close();
    hypmap::drop_boot_code();
}

/// Expects a CPU for a second of the counter, which has this frequency in Hz. Returns the counter's value at the end.
fn expect(cpu: CpuId, hz: u32) -> u64 {
    ADMISSION.expect(cpu);
    let end = timer::counter().saturating_add(hz.into());
    ARRIVES_BEFORE.store(end, Ordering::Relaxed);
    end
}

/// Returns how far the start of an expected CPU is. One that is late is reported, and may not come any more.
fn progress(cpu: CpuId) -> Progress {
    if is_up(cpu) {
        return Progress::Arrived;
    }
    let is_late = timer::counter() > ARRIVES_BEFORE.load(Ordering::Relaxed);
    // One that has arrived needs no time for the rest.
    if !is_late || !ADMISSION.give_up(cpu) {
        return Progress::Waits;
    }
    log::warn!(
        "SMP: CPU{} did not start; if it still comes, it is parked",
        cpu.raw()
    );
    Progress::TimedOut
}

/// Stops expecting a CPU that firmware refuses to start, and reports it. Returns false if it has arrived all the same.
fn refused(cpu: CpuId, result: i32) -> bool {
    let is_absent = ADMISSION.give_up(cpu);
    if is_absent {
        log::warn!("SMP: CPU{} did not start (PSCI rc={result})", cpu.raw());
    }
    is_absent
}

fn is_up(cpu: CpuId) -> bool {
    UP.load(Ordering::SeqCst) & 1 << cpu.raw() != 0
}

/// Starts a CPU, and waits for it. Returns whether it runs.
fn start(host: &HostInfo, gic: &Gic, cpu: CpuId, info: &CpuInfo, interface: usize) -> bool {
    if let Some(psci) = firmware(host, info) {
        expect(cpu, super::counter_frequency(host));
        let result = turn_on(psci, cpu, info.mpidr);
        if result != 0 && refused(cpu, result) {
            return false;
        }
    } else if !start_by_board(host, gic, cpu, info, interface) {
        return false;
    }
    let runs = loop {
        match progress(cpu) {
            Progress::Arrived => break true,
            Progress::TimedOut => break false,
            Progress::Waits => core::hint::spin_loop(),
        }
    };
    pen::close();
    runs
}

/// Begins to start a CPU by the board's registers. Returns false if that is not possible, and reports why.
fn start_by_board(
    host: &HostInfo,
    gic: &Gic,
    cpu: CpuId,
    info: &CpuInfo,
    interface: usize,
) -> bool {
    let number = cpu.raw();
    let steps = match info.enable_method {
        EnableMethod::Psci => None,
        _ => host.board.start(info.mpidr),
    };
    let Some(steps) = steps else {
        let method = match &info.enable_method {
            EnableMethod::Other(method) => method,
            _ => "no PSCI by SMC",
        };
        log::warn!("SMP: CPU{number}: no way to start ({method})");
        return false;
    };
    let Some(steps) = super::board::map(steps) else {
        log::warn!("SMP: CPU{number}: the board's registers cannot be mapped");
        return false;
    };
    if !steps.answer() {
        log::warn!("SMP: CPU{number}: firmware bars the board's registers");
        return false;
    }
    pen::enter_hyp_by(host.board.monitor_call.unwrap_or(0));
    expect(cpu, super::counter_frequency(host));
    pen::call(cpu, info.mpidr);
    steps.run(pen::entry());
    if abort::synchronize() {
        log::warn!("SMP: CPU{number}: firmware bars writes to the board's registers");
    }
    secure::wake(&gic.dist, interface as u32);
    true
}

/// Stops a secondary CPU permanently if its type, revision or floating-point registers differ from the boot CPU's, as
/// guests move between CPUs. With `hmp-unsafe` the registers alone decide, as all of them are switched.
pub fn check_kind(cpu: CpuId) {
    let (kind, ours) = (smp::midr(), KIND.load(Ordering::SeqCst));
    if kind != ours {
        log::warn!(
            "SMP: CPU{}: MIDR {kind:#010x} is not {ours:#010x}",
            cpu.raw()
        );
        if !options::get().is_some_and(|options| options.hmp_unsafe) {
            krypton::machine::halt()
        }
    }
    let (vfp, ours) = (features::vfp_here(), features::vfp());
    if vfp != ours {
        log::warn!("SMP: CPU{}: VFP {vfp:?} is not {ours:?}", cpu.raw());
        krypton::machine::halt()
    }
}

/// Sets up a secondary CPU's interrupt interfaces, and waits for [`release_secondaries`].
pub fn join(cpu: CpuId) -> trap::Cpu {
    let Some(gic) = gic::get() else {
        krypton::machine::halt()
    };
    gic.dist.init_cpu();
    gic.cpu.init_cpu();
    gic.hyp.init_cpu();
    enable_private_interrupts(cpu, gic);
    if !ADMISSION.arrive(cpu) {
        log::warn!("SMP: CPU{} comes too late, parked", cpu.raw());
        krypton::machine::halt()
    }
    cpu::set_online(cpu, gic.dist.target_mask());
    UP.fetch_or(1 << cpu.raw(), Ordering::SeqCst);
    while !GO.load(Ordering::SeqCst) {
        armv7::fence::acknowledge();
        core::hint::spin_loop();
    }
    let Some(ready) = sched::ready() else {
        krypton::machine::halt()
    };
    set_frequency(cpu, time::clock().hz());
    trap::Cpu {
        id: cpu,
        gic,
        ready,
    }
}

/// Unmaps the boot mappings, then lets the secondary CPUs into the main loop.
pub fn release_secondaries() {
    hypmap::drop_boot_mappings();
    GO.store(true, Ordering::SeqCst);
}

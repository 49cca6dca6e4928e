//! Set-up of this CPU, and start of the other CPUs.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use armv7::admission::Admission;
use armv7::controls::GuestWait;
use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};
use armv7::features::{self, Vfp};
use armv7::gic::{self, Gic};
use armv7::smc::psci::CPU_ON;
use armv7::{controls, errata, guest, hypmap, pen, secure, smp, timer};
use krypton::cmdline::{Options, Vwfi};
use krypton::irq::{self, Handler};
use krypton::options;
use krypton::platform::board::Start;
use krypton::platform::host_dt::{Conduit, CpuInfo, EnableMethod, HostInfo};
use krypton::trap;
use krypton::{cpu, sched, time};

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

/// Sets up vectors, traps and timers of this CPU. Reports registers that did not keep their value, and an abort left
/// pending by the boot loader.
pub fn set_up_cpu(cpu: CpuId) {
    let wait = match options::get().map(|options| options.vwfi) {
        Some(Vwfi::Native) => GuestWait::Native,
        _ => GuestWait::Traps,
    };
    let mismatches = controls::init_cpu(cpu, wait);
    if armv7::abort::synchronize() {
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

/// Enables the hypervisor's private interrupts on this CPU.
pub fn enable_private_interrupts(gic: &Gic) {
    for slot in &PRIVATE {
        let intid = slot.load(Ordering::Relaxed);
        gic.dist.prefer(intid);
        gic.dist.enable(intid);
    }
}

/// Starts the other CPUs. Returns all that run. One that does not start is reported and left out.
pub fn start_cpus(host: &HostInfo, options: &Options, gic: &Gic) -> CpuSet {
    let own = smp::affinity();
    let mut online = CpuSet::of(CpuId::BOOT);
    cpu::set_online(CpuId::BOOT, gic.dist.target_mask());
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
        }
    }
    pen::close();
    log::info!("Brought up {} CPUs", online.len());
    online
}

fn start(host: &HostInfo, gic: &Gic, cpu: CpuId, info: &CpuInfo, interface: usize) -> bool {
    let number = cpu.raw();
    ADMISSION.expect(cpu);
    let result = match (&host.psci, &info.enable_method, &host.board.start) {
        (Some(psci), EnableMethod::Psci | EnableMethod::Unsaid, _)
            if psci.conduit == Conduit::Smc =>
        {
            match pen::start(cpu, info.mpidr, psci.cpu_on) {
                // The tree's function id is for other firmware: QEMU's Midway implements the standard functions.
                rc if rc != 0 && !psci.standard => pen::start(cpu, info.mpidr, CPU_ON),
                rc => rc,
            }
        }
        (_, EnableMethod::Psci, _) | (_, _, Start::None) => {
            let method = match &info.enable_method {
                EnableMethod::Other(method) => method,
                _ => "no PSCI by SMC",
            };
            log::warn!("SMP: CPU{number}: no way to start ({method})");
            return false;
        }
        (_, _, Start::Pen(steps)) => {
            let Some(steps) = super::board::map(steps) else {
                log::warn!("SMP: CPU{number}: the board's registers cannot be mapped");
                return false;
            };
            pen::call(cpu, info.mpidr);
            steps.run(pen::entry());
            secure::wake(&gic.dist, interface as u32);
            0
        }
    };
    // Times out after a second of the counter; a CPU that has not arrived is left out.
    let end = timer::counter().saturating_add(super::counter_frequency(host).into());
    let is_up = || UP.load(Ordering::SeqCst) & 1 << number != 0;
    while result == 0 && !is_up() && timer::counter() < end {
        core::hint::spin_loop();
    }
    pen::close();
    if ADMISSION.give_up(cpu) {
        let later = match result {
            0 => "; if it still comes, it is parked",
            _ => "",
        };
        log::warn!("SMP: CPU{number} did not start (PSCI rc={result}){later}");
        return false;
    }
    // It has arrived, and needs no time for the rest.
    while !is_up() {
        core::hint::spin_loop();
    }
    true
}

/// Stops a secondary CPU permanently if its type, revision or floating-point registers differ from the boot CPU's, as
/// guests move between CPUs.
pub fn check_kind(cpu: CpuId) {
    let (kind, ours) = (smp::midr(), KIND.load(Ordering::SeqCst));
    if kind != ours {
        log::warn!(
            "SMP: CPU{}: MIDR {kind:#010x} is not {ours:#010x}",
            cpu.raw()
        );
        krypton::machine::halt()
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
    enable_private_interrupts(gic);
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

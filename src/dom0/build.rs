//! Builds dom0: maps its RAM 1:1, passes devices and interrupts through, and copies kernel, tree and RAM disk.

use alloc::sync::Arc;

use armv7::addr::{Gfn, PAGE_SHIFT, PhysAddr};
use armv7::cpu::{CpuId, CpuSet};
use armv7::gic::Gic;
use armv7::pmu;

use super::devices::DevicePlan;
use super::plan::{self, Plan, Wish};
use super::selection::HostView;
use crate::abi::hvm;
use crate::cmdline::{DEFAULT_DOM0_MEM, Options};
use crate::console;
use crate::domain::create;
use crate::domain::{Domain, GicMap, Rights, Spec};
use crate::grant::Limits;
use crate::id::{DomId, IntId, MAX_SPIS, VcpuId};
use crate::irq;
use crate::loader::copy::{self, Parts};
use crate::mem::frame_table::Use;
use crate::mem::memory;
use crate::mem::p2m::{P2mType, PoolLimit};
use crate::platform::BootError;
use crate::platform::host_dt::{HostInfo, ModuleKind};
use crate::platform::ranges::{self, PhysRange};
use crate::sched::{self, PoolId};

/// The facts that boot has found.
pub struct Host<'a> {
    /// The machine.
    pub info: &'a HostInfo,
    /// Its device tree, and the nodes that the hypervisor keeps.
    pub machine: HostView<'a>,
    /// Options.
    pub options: &'a Options,
    /// The interrupt controller.
    pub gic: &'static Gic,
    /// The RAM that is free for dom0.
    pub free: &'a [PhysRange],
    /// The machine addresses of the image. dom0 has no RAM there, so it may map its grant table at them.
    pub grant: PhysRange,
    /// The CPUs that are up.
    pub cpus: u32,
    /// There is a scheduler.
    pub ready: sched::Ready,
}

fn dom0(what: &str) -> BootError {
    BootError::Dom0(what.into())
}

/// Builds dom0, and brings its first vCPU online.
pub fn build(host: &Host<'_>) -> Result<Arc<Domain>, BootError> {
    let kernel = host.info.kernel()?;
    let image = copy::kernel_of(kernel)?;
    let want = host.options.dom0_mem.unwrap_or_else(|| {
        log::warn!(
            "WARNING: dom0_mem not given: {} MiB",
            DEFAULT_DOM0_MEM >> 20
        );
        DEFAULT_DOM0_MEM
    });
    let vcpus = host.options.dom0_vcpus(host.cpus);
    let Plan {
        banks,
        devices,
        event_interrupt,
        place,
        tree,
    } = plan::plan(&Wish {
        machine: host.machine,
        free: host.free,
        grant: host.grant,
        kernel: &image,
        memory: want,
        vcpus,
        ext_regions: host.options.ext_regions,
    })?;
    for note in &devices.notes {
        log::warn!("{note}");
    }

    let domain = create(host, &banks, vcpus, event_interrupt)?;
    map(host, &domain, &banks, &devices)?;
    route(host, &domain, &devices);

    let parts = Parts {
        kernel,
        image: &image,
        ramdisk: host.info.module(ModuleKind::Ramdisk),
        tree: &tree,
    };
    copy::load(&domain, &parts, &place)?;
    domain.state.lock().params.callback_irq = callback(event_interrupt);
    copy::start(&domain, &place)?;
    // Nobody has the input yet.
    console::add_input(domain.id);
    Ok(domain)
}

/// HVM_PARAM_CALLBACK_IRQ for a PPI that is active low (xen/include/public/hvm/params.h).
fn callback(ppi: u32) -> u64 {
    u64::from(hvm::CALLBACK_TYPE_PPI) << 56
        | u64::from(hvm::CALLBACK_PPI_FLAG_LOW_LEVEL) << 8
        | u64::from(ppi)
}

fn create(
    host: &Host<'_>,
    banks: &[PhysRange],
    vcpus: u32,
    event: u32,
) -> Result<Arc<Domain>, BootError> {
    let pages: u64 = banks.iter().map(|bank| bank.size() >> PAGE_SHIFT).sum();
    let options = host.options;
    let distributor = host.info.gic.distributor.pages_outward();
    let spec = Spec {
        id: DomId::DOM0,
        rights: Rights::DOM0,
        max_vcpus: u8::try_from(vcpus).map_err(|_| dom0("too many vCPUs"))?,
        nr_spis: u16::try_from(host.gic.dist.lines().saturating_sub(32))
            .map_or(MAX_SPIS, |spis| spis.min(MAX_SPIS)),
        event_irq: IntId::new(event).ok_or_else(|| dom0("no interrupt for events"))?,
        gic: GicMap {
            first_page: distributor.start().frame().raw(),
            pages: frames(&distributor).1,
        },
        max_port: u32::MAX,
        grants: Limits::new(
            options.gnttab_max_frames,
            options.gnttab_max_maptrack_frames,
        )
        .ok_or_else(|| dom0("grant table limits out of range"))?,
        max_pages: u32::try_from(pages).map_err(|_| dom0("too much memory"))?,
        tables: PoolLimit::Unlimited,
        pool: PoolId::FIRST,
        monitors: pmu::Access::Traps,
    };
    let domain = create::domain(&spec)
        .map_err(|error| dom0(&alloc::format!("cannot be created: {error}")))?;
    let pin = options.dom0_vcpus_pin;
    let affinity = |id: VcpuId| match CpuId::new(id.raw().into()) {
        Some(cpu) if pin => CpuSet::of(cpu),
        _ => CpuSet::ALL,
    };
    while !create::next_vcpu(&domain, affinity)
        .map_err(|error| dom0(&alloc::format!("no vCPUs: {error}")))?
    {}
    Ok(domain)
}

/// Maps memory, devices and the virtual CPU interface.
fn map(
    host: &Host<'_>,
    domain: &Domain,
    banks: &[PhysRange],
    plan: &DevicePlan,
) -> Result<(), BootError> {
    for (n, bank) in banks.iter().enumerate() {
        log::info!(
            "BANK[{n}] {:#x}-{:#x} ({}MB)",
            bank.base(),
            bank.end(),
            bank.size() >> 20
        );
        let (first, count) = frames(bank);
        memory()
            .alloc_direct(DomId::DOM0, first.frame(), count)
            .map_err(|error| dom0(&alloc::format!("bank {:#x}: {error:?}", bank.base())))?;
        map_range(domain, bank, bank, P2mType::RamRw)?;
    }
    for range in &plan.mmio {
        map_range(domain, range, range, P2mType::MmioDirect)?;
    }
    for range in &plan.reserved_ram {
        map_range(domain, range, range, P2mType::MmioDirect)?;
    }
    let gicc = host.info.gic.cpu.pages_outward();
    let gicv = host.info.gic.virtual_cpu.pages_outward();
    let size = gicc.size().min(gicv.size());
    let (Some(gicc), Some(gicv)) = (
        PhysRange::new(gicc.base(), size),
        PhysRange::new(gicv.base(), size),
    ) else {
        return Err(dom0("no CPU interface"));
    };
    map_range(domain, &gicc, &gicv, P2mType::GicV)
}

fn frames(range: &PhysRange) -> (PhysAddr, u32) {
    (
        range.start(),
        u32::try_from(range.size() >> PAGE_SHIFT).unwrap_or(u32::MAX),
    )
}

/// Maps whole pages of `to` at `at`.
fn map_range(
    domain: &Domain,
    at: &PhysRange,
    to: &PhysRange,
    kind: P2mType,
) -> Result<(), BootError> {
    let (first, count) = frames(to);
    let gfn = Gfn::new(at.base() >> PAGE_SHIFT).ok_or_else(|| dom0("address beyond 40 bits"))?;
    let mapped = domain
        .p2m
        .lock()
        .map(gfn, first.frame(), count, kind, u32::MAX);
    match mapped {
        Ok(done) if done == count => Ok(()),
        other => Err(dom0(&alloc::format!(
            "mapping {:#x}-{:#x}: {other:?}",
            at.base(),
            at.end()
        ))),
    }
}

fn route(host: &Host<'_>, domain: &Domain, plan: &DevicePlan) {
    for line in &plan.interrupts {
        if irq::route_to_guest(host.gic, line.intid, domain, line.trigger).is_err() {
            log::warn!("DOM0: interrupt {} cannot be routed", line.intid);
        }
    }
}

/// Frees the boot modules' memory but for what is kept, once all guests have their copies.
pub fn release_modules(info: &HostInfo, kept: &[PhysRange]) {
    for range in ranges::subtract(&info.module_pages(), kept) {
        let (first, count) = frames(&range);
        memory().release(first.frame(), count);
    }
}

/// Reserves the boot modules' memory until [`release_modules`].
pub fn reserve_modules(info: &HostInfo) -> Result<(), BootError> {
    for range in info.module_pages() {
        let (first, count) = frames(&range);
        memory()
            .reserve(first.frame(), count, Use::Module)
            .map_err(|_| {
                BootError::Module(alloc::format!(
                    "{:#x}-{:#x} is not free RAM",
                    range.base(),
                    range.end()
                ))
            })?;
    }
    Ok(())
}

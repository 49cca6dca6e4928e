//! Rows of one vCPU alone: hypercalls, emulated registers, interrupts, timers, events, grants, memory.

use core::arch::asm;

use guests::abi::{self, reservation};
use guests::event::{self, SharedInfo, VcpuInfo};
use guests::gic::{self, Target, distributor};
use guests::grant::{self, Table};
use guests::hypercall::{self, address_of, call};
use guests::memory::Frame;
use guests::status::EBUSY;
use guests::{cp15, mmio, platform, psci};

use crate::measure::{lateness, row, until_taken, whole};

unsafe extern "C" {
    /// Loads from the address, which faults.
    fn bench_faults(rounds: u32, address: u32);
}

/// Memory alone: no hypervisor should be seen here.
pub fn touch() {
    const PAGES: u32 = 4096;
    let memory = Frame::take_aligned(PAGES);
    row("touch_16MiB_4k_stride", 64, || {
        for page in 0..PAGES {
            memory.nth(page).read(0);
        }
    });
}

/// An event port of vCPU 0 to itself.
pub struct Events {
    pub shared: SharedInfo,
    pub vcpu: VcpuInfo,
    pub port: u32,
}

impl Events {
    pub fn new() -> Self {
        let shared = SharedInfo::map().expect("shared_info");
        gic::enable(platform::get().event_interrupt);
        Events { shared, vcpu: VcpuInfo(shared.0.address()), port: event::bind_ipi(0).expect("an IPI port") }
    }

    /// Closes the port and gives shared_info's place back.
    pub fn end(self) {
        event::close(self.port);
        abi::remove_from_physmap(self.shared.0.gfn());
    }

    #[inline(always)]
    pub fn take(&self) {
        self.vcpu.take_upcall();
        self.vcpu.take_selector();
        self.shared.clear_pending(self.port);
    }
}

pub fn hypercalls() {
    const XENVER_GET_FEATURES: u32 = 6;
    const UNKNOWN: u32 = 63;
    row("hypercall_xen_version", 8000, || {
        call(hypercall::XEN_VERSION, [0; 5]);
    });
    row("hypercall_unknown", 8000, || {
        call(UNKNOWN, [0; 5]);
    });
    let features = Frame::take();
    row("hypercall_get_features", 8000, || {
        call(hypercall::XEN_VERSION, [XENVER_GET_FEATURES, features.address(), 0, 0, 0]);
    });
    row("hypercall_sched_yield", 4000, yield_alone);
    let mut text = *b"................................................  64 characters\n";
    let text = address_of(&mut text);
    whole("console_write_64", 16, |rounds| {
        for _ in 0..rounds {
            call(hypercall::CONSOLE_IO, [0, 64, text, 0, 0]);
        }
    });
}

#[inline(always)]
pub fn yield_alone() {
    call(hypercall::SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
}

/// The conduit is HVC without a hypervisor too: the emulator answers then.
pub fn firmware() {
    row("psci_version", 8000, || {
        psci::call_by_hvc(psci::VERSION, 0, 0, 0);
    });
}

pub fn emulated_registers() {
    // Of a virtio slot of the virt board: routed to dom0, so that the physical line is switched too.
    const SPI: u32 = 48;
    let typer = distributor(gic::TYPER);
    let isenabler = distributor(gic::ISENABLER);
    let priority = distributor(gic::IPRIORITYR + 20);
    row("gicd_read_typer", 8000, || {
        mmio::read32(typer);
    });
    row("gicd_read_isenabler0", 8000, || {
        mmio::read32(isenabler);
    });
    row("gicd_read_ipriority", 8000, || {
        mmio::read32(priority);
    });
    row("gicd_write_isenabler0_noop", 8000, || mmio::write32(isenabler, 0));
    row("gicd_write_ipriority_byte", 8000, || mmio::write8(priority, 0xa0));
    row("gicd_spi_disable_enable_pair", 4000, || {
        gic::disable(SPI);
        gic::enable(SPI);
    });
    row("cp15_actlr_read", 8000, || {
        cp15::actlr();
    });
    row("cp15_idpfr0_read", 8000, || {
        // SAFETY: reads an identification register.
        unsafe { asm!("mrc p15, 0, {}, c0, c1, 0", out(reg) _, options(nostack)) }
    });
    row("cp15_cntpct_read", 8000, || {
        cp15::cntpct();
    });
}

pub fn interrupts() {
    const SGI: u32 = 1;
    row("sgi_self_taken", 8000, || until_taken(|| gic::send_sgi(Target::Myself, SGI)));
    row("wfi_irq_pending_masked", 1600, || {
        until_taken(|| {
            cp15::disable_interrupts();
            gic::send_sgi(Target::Myself, SGI);
            cp15::wfi();
            cp15::enable_interrupts();
        })
    });
    cp15::disable_interrupts();
    gic::send_sgi(Target::Myself, SGI);
    row("sgi_self_masked_pending", 4000, || gic::send_sgi(Target::Myself, SGI));
    cp15::enable_interrupts();
}

pub fn timers() {
    cp15::write_cntv_cval(0);
    row("vtimer_expired_taken", 8000, || until_taken(|| cp15::write_cntv_ctl(1)));
    lateness("vtimer_latency_running_32us", 1600, 32, || {});
    lateness("vtimer_latency_wfi_32us", 1600, 32, cp15::wfi);
    lateness("vtimer_latency_wfi_1ms", 1600, 1000, cp15::wfi);
}

pub fn blocking() {
    lateness("vtimer_latency_sched_block_1ms", 1600, 1000, || {
        call(hypercall::SCHED_OP, [abi::SCHEDOP_BLOCK, 0, 0, 0, 0]);
    });
}

pub fn events() {
    let events = Events::new();
    let port = Frame::take();
    port.write(0, events.port);
    let send = || {
        call(hypercall::EVENT_CHANNEL_OP, [event::SEND, port.address(), 0, 0, 0]);
    };
    row("evtchn_send_self_taken", 8000, || {
        until_taken(send);
        events.take();
    });
    send();
    row("evtchn_send_already_pending", 8000, send);
    events.take();
    events.shared.set_mask(events.port);
    row("evtchn_send_masked", 8000, || {
        send();
        events.shared.clear_pending(events.port);
    });
    events.shared.clear_mask(events.port);
    let bind = Frame::take();
    row("evtchn_bind_close_ipi", 1600, || {
        bind.write(0, 0);
        call(hypercall::EVENT_CHANNEL_OP, [event::BIND_IPI, bind.address(), 0, 0, 0]);
        call(hypercall::EVENT_CHANNEL_OP, [event::CLOSE, bind.address() + 4, 0, 0, 0]);
    });
    events.end();
}

const REFERENCE: u32 = 8;

pub fn grants() {
    let table = Table::map().expect("the grant table");
    let (granted, target) = (Frame::take(), Frame::take());
    table.set(REFERENCE, grant::PERMIT_ACCESS, abi::DOM0, granted.gfn());
    // A refused call would be measured as a fast one: each is made once with a look at its result.
    assert_eq!(
        grant::copy(grant::granted(abi::DOM0, REFERENCE, 0), grant::local(target, 0), 4096, grant::COPY_SOURCE_GREF),
        0
    );
    for (name, length) in [("grant_copy_4096", 4096), ("grant_copy_64", 64)] {
        row(name, 1600, || {
            grant::copy(
                grant::granted(abi::DOM0, REFERENCE, 0),
                grant::local(target, 0),
                length,
                grant::COPY_SOURCE_GREF,
            );
        });
    }
    reservation(abi::MEM_DECREASE_RESERVATION, &mut [target.gfn()], 0);
    map_and_unmap("grant_map_unmap", target);
    // The frame is mapped already, so that this is the way to the refusal, like the figure it is compared with.
    assert_eq!(abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 0, table.0.gfn()), EBUSY);
    row("add_to_physmap_gnttab", 1600, || {
        abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 0, table.0.gfn());
    });
    assert_eq!(abi::remove_from_physmap(table.0.gfn()), 0);
    assert_eq!(abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 0, table.0.gfn()), 0);
    row("remove_add_to_physmap_gnttab", 1600, || {
        abi::remove_from_physmap(table.0.gfn());
        abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 0, table.0.gfn());
    });
}

/// The row's rounds map the granted page into the hole and unmap it.
fn map_and_unmap(name: &'static str, hole: Frame) {
    let mapping = grant::map(REFERENCE, abi::DOM0, grant::MAP_HOST, hole);
    assert_eq!(mapping.status, 0);
    assert_eq!(grant::unmap(mapping.handle, hole), 0);
    row(name, 1600, || {
        let mapping = grant::map(REFERENCE, abi::DOM0, grant::MAP_HOST, hole);
        grant::unmap(mapping.handle, hole);
    });
}

/// [`map_and_unmap`] with a grant table for that time.
pub fn map_own_grant(name: &'static str, hole: Frame) {
    let table = Table::map().expect("the grant table");
    table.set(REFERENCE, grant::PERMIT_ACCESS, abi::DOM0, Frame::take().gfn());
    map_and_unmap(name, hole);
    table.clear(REFERENCE);
    assert_eq!(abi::remove_from_physmap(table.0.gfn()), 0);
}

pub fn memory() {
    let page = Frame::take();
    row("mem_decrease_populate_4k", 800, || {
        reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn()], 0);
        reservation(abi::MEM_POPULATE_PHYSMAP, &mut [page.gfn()], 0);
    });
    let large = Frame::take_aligned(512);
    assert_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn(), large.gfn()], 0), 2);
    assert_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut [page.gfn(), large.gfn()], 0), 2);
    row("mem_decrease_2m", 8, || {
        reservation(abi::MEM_DECREASE_RESERVATION, &mut [large.gfn()], 9);
        reservation(abi::MEM_POPULATE_PHYSMAP, &mut [large.gfn()], 9);
    });
    reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn()], 0);
    // A hypervisor may tell of the first ones on its console.
    // SAFETY: as below.
    unsafe { bench_faults(64, page.address()) };
    whole("stage2_fault_injected_abort", 1600, |rounds| {
        // SAFETY: loads from a hole under the vectors that expect it.
        unsafe { bench_faults(rounds, page.address()) }
    });
}

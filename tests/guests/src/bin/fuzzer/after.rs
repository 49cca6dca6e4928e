//! After all steps the hypervisor answers as it did before.

use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, DOMID_SELF};
use guests::domain::{self, Domain};
use guests::event::{self, SharedInfo};
use guests::grant::{self, MAP_HOST, PERMIT_ACCESS};
use guests::harness::{Failure, Verdict, expect};
use guests::hypercall::{XEN_VERSION, call};
use guests::memory::Frame;
use guests::{clock, cp15, ensure, ensure_eq, gic, interrupt, platform, psci, smp};

use crate::argument;

static PAGES: AtomicU32 = AtomicU32::new(0);

/// Takes pages for what is looked at afterwards. One is shared_info's, which has one place at a time.
pub fn prepare() -> Verdict {
    PAGES.store(Frame::take_aligned(4).address(), Ordering::SeqCst);
    ensure_eq!(abi::add_to_physmap(abi::SPACE_SHARED_INFO, 0, page(0).gfn()), 0);
    Ok(())
}

fn page(index: u32) -> Frame {
    Frame::at(PAGES.load(Ordering::SeqCst)).nth(index)
}

pub fn calls_are_answered() -> Verdict {
    ensure_eq!(call(XEN_VERSION, [0; 5]), 4 << 16 | 17);
    ensure_eq!(psci::call(psci::VERSION, 0, 0, 0) >> 16, 1);
    Ok(())
}

pub fn a_port_carries_an_event() -> Verdict {
    ensure_eq!(event::reset(DOMID_SELF), 0);
    let shared = SharedInfo(page(0));
    shared.clear_all();
    let here = expect(event::alloc_loopback())?;
    let there = expect(event::bind_interdomain(DOMID_SELF, here))?;
    ensure_eq!(event::send(there), 0);
    ensure!(shared.pending(here));
    ensure_eq!(event::close(there), 0);
    ensure_eq!(event::close(here), 0);
    Ok(())
}

pub fn a_page_is_lent_and_given_back() -> Verdict {
    const REFERENCE: u32 = 8;
    let (lent, place) = (page(1), page(2));
    lent.write(0, 0x600d_600d);
    argument::table().clear(REFERENCE);
    // Mappings that steps have left hold their entries.
    let reference = (REFERENCE + 32..).find(|&reference| argument::table().flags(reference) == 0).unwrap_or(REFERENCE);
    argument::table().set(reference, PERMIT_ACCESS, grant::myself(), lent.gfn());
    ensure_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [place.gfn()], 0), 1);
    let mapping = grant::map(reference, grant::myself(), MAP_HOST, place);
    ensure_eq!(mapping.status, 0);
    ensure_eq!(place.read(0), 0x600d_600d);
    ensure_eq!(grant::unmap(mapping.handle, place), 0);
    Ok(())
}

pub fn a_page_comes_and_goes() -> Verdict {
    let page = page(3);
    ensure_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn()], 0), 1);
    ensure_eq!(abi::reservation(abi::MEM_POPULATE_PHYSMAP, &mut [page.gfn()], 0), 1);
    page.write(0, 0x600d_600d);
    ensure_eq!(page.read(0), 0x600d_600d);
    Ok(())
}

pub fn a_timer_ends_a_wait() -> Verdict {
    const TICKS: u32 = 1000;
    gic::enable(gic::VIRTUAL_TIMER);
    ensure!(gic::bit(gic::ISENABLER, gic::VIRTUAL_TIMER));
    ensure!(!gic::bit(gic::ISACTIVER, gic::VIRTUAL_TIMER));
    cp15::write_cntv_tval(TICKS);
    cp15::write_cntv_ctl(interrupt::TIMER_ENABLED);
    cp15::wfi();
    ensure!(clock::poll(|| cp15::cntv_ctl() & interrupt::TIMER_FIRED != 0));
    ensure!(clock::poll(|| gic::bit(gic::ISPENDR, gic::VIRTUAL_TIMER)));
    ensure_eq!(gic::highest_pending(), gic::VIRTUAL_TIMER);
    let comes = interrupt::comes(gic::VIRTUAL_TIMER, 1);
    cp15::write_cntv_ctl(0);
    ensure!(comes, interrupt::count(gic::VIRTUAL_TIMER));
    Ok(())
}

pub fn a_vcpu_comes_and_goes() -> Verdict {
    if platform::get().cpus > 1 {
        ensure!(smp::run_on(1, || {}));
    }
    Ok(())
}

/// Ends all domains but this one.
pub fn end_domains() {
    let mut from = 1;
    while let Some(other) = Domain::next(from) {
        other.destroy().ok();
        from = other.0 + 1;
    }
}

/// Returns whether the hypervisor finds no fault in its books.
fn audit() -> Result<bool, Failure> {
    expect(domain::debug_key(b'y'))?;
    expect(domain::log_says(b"audit: every reference on every frame is accounted for"))
}

pub fn domains_come_and_go_and_all_is_accounted_for() -> Verdict {
    if grant::myself() != abi::DOM0 {
        return Ok(());
    }
    end_domains();
    // The dead are forgotten by the next call.
    ensure!(Domain::next(1).is_none());
    let domain = expect(Domain::create(16, 1 << 20))?;
    expect(domain.populate(domain::MEMORY, 0))?;
    expect(domain.destroy())?;
    ensure!(audit()?);
    Ok(())
}

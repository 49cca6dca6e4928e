//! The wall clock: dom0 sets it, and every domain reads it in its shared_info (`wc_*`, xen/include/public/xen.h).
//!
//! `wc_sec` and `wc_nsec` are the time of day at system time zero; a guest adds its own system time.

use core::sync::atomic::{AtomicU64, Ordering};

use armv7::frame::SharedPage;

use crate::abi::shared_info as abi;
use crate::domain::{Domain, registry};
use crate::id::DomId;
use crate::time::{self, Ticks};

const NANOSECONDS: u64 = 1_000_000_000;

/// Time of day at system time zero, in nanoseconds since 1970.
static AT_ZERO: AtomicU64 = AtomicU64::new(0);

/// Sets the time of day: `secs` and `nsecs` at `system_time`, which is in nanoseconds.
pub fn set(secs: u64, nsecs: u32, system_time: u64) {
    let then = secs
        .saturating_mul(NANOSECONDS)
        .saturating_add(nsecs.into());
    let at_zero = then.saturating_sub(system_time);
    AT_ZERO.store(at_zero, Ordering::Relaxed);
    // dom0's system time starts with its virtual counter.
    let began = registry::get(DomId::DOM0).map_or(0, |dom0| dom0.cntvoff());
    crate::log::set_time_of_day(at_zero.saturating_sub(time::clock().ns(Ticks(began)).0));
    for domain in registry::all() {
        publish(&domain);
    }
}

/// Writes a domain's wall clock into its shared_info.
///
/// The time of day is relative to the control domain's system time. Another domain's system time starts later, with its
/// virtual counter; like Xen, this adds the difference in whole seconds.
pub fn publish(domain: &Domain) {
    let start = registry::get(DomId::DOM0).map_or(domain.cntvoff(), |dom0| dom0.cntvoff());
    let offset = domain
        .state
        .lock()
        .time_offset
        .saturating_add(seconds_between(start, domain.cntvoff()));
    let base = AT_ZERO
        .load(Ordering::Relaxed)
        .saturating_add_signed(offset.saturating_mul(NANOSECONDS as i64));
    let events = domain.events.lock();
    write(
        events.shared_info(),
        base / NANOSECONDS,
        (base % NANOSECONDS) as u32,
    );
}

/// Returns the whole seconds from one counter offset to another, which a counter that was carried on from another machine
/// may have before the first.
fn seconds_between(start: u64, cntvoff: u64) -> i64 {
    let ticks = cntvoff.wrapping_sub(start) as i64;
    let seconds = (time::clock().ns(Ticks(ticks.unsigned_abs())).0 / NANOSECONDS) as i64;
    if ticks < 0 { -seconds } else { seconds }
}

/// Returns the time of day, in nanoseconds since 1970; counted from then on where nobody has set it.
pub fn now() -> u64 {
    let began = registry::get(DomId::DOM0).map_or(0, |dom0| dom0.cntvoff());
    let since = time::clock().ns(Ticks(time::now().0.wrapping_sub(began))).0;
    AT_ZERO.load(Ordering::Relaxed).saturating_add(since)
}

/// Writes under the version word, which is odd during the update.
fn write(page: &SharedPage, secs: u64, nsecs: u32) {
    let store = |offset: usize, value: u32| {
        if let Some(word) = page.u32_at(offset) {
            word.store(value, Ordering::Relaxed);
        }
    };
    let Some(version) = page.u32_at(abi::WC_VERSION) else {
        return;
    };
    let odd = version.load(Ordering::Relaxed) | 1;
    version.store(odd, Ordering::Relaxed);
    armv7::barrier::dmb_ish();
    store(abi::WC_SEC, secs as u32);
    store(abi::WC_NSEC, nsecs);
    store(abi::WC_SEC_HI, (secs >> 32) as u32);
    armv7::barrier::dmb_ish();
    version.store(odd.wrapping_add(1), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use armv7::addr::Mfn;
    use armv7::frame;
    use core::sync::atomic::Ordering;

    #[test]
    fn the_version_is_even_and_new_after_a_change() {
        let mfn = Mfn::new(u64::from(armv7::host::frame::FIRST + 77)).unwrap();
        let page = frame::page(mfn).unwrap();
        page.zero();
        super::write(page, 0x1_0000_0002, 7);
        let word = |offset| page.u32_at(offset).unwrap().load(Ordering::Relaxed);
        assert_eq!(
            (word(1072), word(1076), word(1080), word(1084)),
            (2, 2, 7, 1)
        );
        super::write(page, 3, 8);
        assert_eq!(word(1072), 4);
    }
}

//! One CPU makes all others wait, for a look at state that they change.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use armv7::fence;

use super::{ask, others, work};

/// Some CPU has the others wait.
static HOLDING: AtomicBool = AtomicBool::new(false);
/// CPUs that wait for it.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// The other CPUs wait, in nobody's work, for as long as this value lives.
#[derive(Debug)]
pub struct Held(());

/// Makes all other CPUs wait at the top of their loops; `None` while another CPU does that. For debugging: it takes as long
/// as the longest of their hypercalls. The caller holds no lock that one of them may be waiting for.
pub fn others_wait() -> Option<Held> {
    if HOLDING.swap(true, Ordering::SeqCst) {
        return None;
    }
    let others = others();
    for cpu in others {
        ask(cpu, work::HOLD);
    }
    spin_while(|| WAITING.load(Ordering::SeqCst) < others.len());
    Some(Held(()))
}

/// Waits for the end of another CPU's hold, as it asked by [`work::HOLD`].
pub fn wait() {
    WAITING.fetch_add(1, Ordering::SeqCst);
    spin_while(|| HOLDING.load(Ordering::SeqCst));
    WAITING.fetch_sub(1, Ordering::SeqCst);
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLDING.store(false, Ordering::SeqCst);
        // All have gone on before the next one may hold them.
        spin_while(|| WAITING.load(Ordering::SeqCst) > 0);
    }
}

fn spin_while(condition: impl Fn() -> bool) {
    while condition() {
        fence::acknowledge();
        core::hint::spin_loop();
    }
}

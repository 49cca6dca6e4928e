//! Stops all other CPUs while one inspects state that they change.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use armv7::fence;

use super::{others, request, work};

/// A CPU is holding the others.
static HOLDING: AtomicBool = AtomicBool::new(false);
/// Number of CPUs being held.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// Holds the other CPUs at the top of their loops until dropped.
#[derive(Debug)]
pub struct Held(());

/// Makes all other CPUs wait at the top of their loops. Returns `None` if another CPU already does. For debugging:
/// takes as long as their longest hypercall. The caller must not hold a lock that another CPU may be waiting for.
pub fn others_wait() -> Option<Held> {
    if HOLDING.swap(true, Ordering::SeqCst) {
        return None;
    }
    let others = others();
    for cpu in others {
        request(cpu, work::HOLD);
    }
    spin_while(|| WAITING.load(Ordering::SeqCst) < others.len());
    Some(Held(()))
}

/// Waits until another CPU's hold ends, on its request [`work::HOLD`].
pub fn wait() {
    WAITING.fetch_add(1, Ordering::SeqCst);
    spin_while(|| HOLDING.load(Ordering::SeqCst));
    WAITING.fetch_sub(1, Ordering::SeqCst);
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLDING.store(false, Ordering::SeqCst);
        // All must have left before the next hold begins.
        spin_while(|| WAITING.load(Ordering::SeqCst) > 0);
    }
}

fn spin_while(condition: impl Fn() -> bool) {
    while condition() {
        fence::acknowledge();
        core::hint::spin_loop();
    }
}

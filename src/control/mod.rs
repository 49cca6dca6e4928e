//! Management of domains and of the machine, for the control domain only.
//!
//! | file | concern |
//! |---|---|
//! | `sysctl`, `domctl` | rights of the caller, and dispatch of the operation |
//! | `request` | the domain that a domctl names, and its result |
//! | `info` | the state of the machine, domains and vCPUs |
//! | `cpupool`, `scheduler` | CPU pools; weight, cap and affinity |
//! | `hotplug` | CPUs that are switched off and on |
//! | `create`, `lifecycle`, `destroy` | the begin, pauses and end of a domain |
//! | `devices` | devices of the machine that a domain gets |
//! | `reap` | removal of dead domains |
//! | `pages` | the pool of a domain's tables, types of its pages, cache maintenance |
//! | `log_dirty` | the gfns of a domain that were written |
//! | `context` | a vCPU's registers |
//! | `save` | a domain's image, written and read |
//! | `bitmap` | sets of CPUs and nodes in guest memory |
//! | `hypfs` | the hypervisor's file system |
//!
//! Rights are checked before anything is locked or changed, in Xen's order: after the form of the argument, and after the
//! existence of the domain. Operations that change a domain's life exclude one another (`exclusive`): the second one is
//! continued instead of waiting.

mod bitmap;
mod context;
pub mod cpupool;
mod create;
mod destroy;
mod devices;
pub mod domctl;
mod hotplug;
pub mod hypfs;
mod info;
mod lifecycle;
mod log_dirty;
mod pages;
mod reap;
mod request;
mod save;
mod scheduler;
pub mod sysctl;

use crate::call::{Args, Caller, Outcome};
use crate::error::Errno;
use crate::sync::{Guard, Lock, rank};

pub use create::{begin, next_vcpu};
pub use destroy::{undo, undo_some};
pub use reap::reap;

static CONTROL: Lock<(), { rank::CONTROL }> = Lock::new(());

/// Returns the exclusive right to change domains' lives, or `None` while another call has it.
fn exclusive() -> Option<Guard<'static, ()>> {
    CONTROL.try_lock()
}

/// Fails unless the caller is the control domain.
fn authorize(caller: &Caller<'_>) -> Result<(), Errno> {
    if caller.domain.is_control() {
        Ok(())
    } else {
        Err(Errno::Perm)
    }
}

/// Marks progress in r1 of a continued call. Callers leave r1 alone or zero. A caller that sets the mark by itself skips
/// work that it asked for.
const PROGRESS: u32 = 0xC0DE_0000;
const PROGRESS_MASK: u32 = 0xFFFF;

/// Returns the progress of a continued call, or `None` for a new one.
fn progress(args: &Args) -> Option<u32> {
    let mark = args.0[1];
    (mark & !PROGRESS_MASK == PROGRESS).then_some(mark & PROGRESS_MASK)
}

/// Returns the continuation of a call with this progress.
fn again_at(args: &Args, progress: u32) -> Outcome {
    Ok(args.again([(1, PROGRESS | progress & PROGRESS_MASK)]))
}

/// Returns the continuation of a call that keeps no progress in its registers.
fn again(args: &Args) -> Outcome {
    Ok(args.again([]))
}

#[cfg(test)]
mod tests {
    use super::{again_at, progress};
    use crate::call::{Args, Reply};

    #[test]
    fn progress_survives_a_continuation() {
        let first = Args([1, 0, 0, 0, 0]);
        assert_eq!(progress(&first), None);
        let Ok(Reply::Again(next)) = again_at(&first, 77) else {
            panic!("a continuation")
        };
        assert_eq!((next.0[0], progress(&next)), (1, Some(77)));
    }
}

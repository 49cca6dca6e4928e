//! Hypercalls: the calling convention and every call whose result a guest can check by itself.
#![no_std]
#![no_main]

use guests::{ensure_eq, suite};
use guests::harness::Verdict;
use guests::hypercall;

suite! { "hypercalls": version_is_4_17 }

fn version_is_4_17() -> Verdict {
    ensure_eq!(hypercall::call(hypercall::XEN_VERSION, [0; 5]), 0x4_0011);
    Ok(())
}

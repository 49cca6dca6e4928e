//! Fuzz targets: functions of bytes that must not panic, whatever the bytes are.
//!
//! Each is a program for libFuzzer (`fuzz_targets`) and a test with inputs by chance (`tests/corpus.rs`). What they make of
//! the bytes is a device tree, a file, or what a guest does, one step after the other; the hypervisor's own checks, and the
//! target's, say whether it was borne. A finding becomes a test beside the rule that it broke.

mod boot;
mod calls;
mod guest;
mod input;
mod saved;

pub use boot::{command_line, config, kernel, leads_to_dom0, tree};
pub use calls::calls;
pub use guest::{events, grants, instructions, vgic};
pub use saved::{context, stream};

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("tree", tree),
    ("command_line", command_line),
    ("kernel", kernel),
    ("config", config),
    ("instructions", instructions),
    ("vgic", vgic),
    ("events", events),
    ("grants", grants),
    ("calls", calls),
    ("stream", stream),
    ("context", context),
];

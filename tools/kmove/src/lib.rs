//! The parts of kmove, which saves domUs of Krypton to a file, restores them, takes checkpoints and moves them, from the
//! control domain.
//!
//! | file | contents |
//! |---|---|
//! | `guest.rs` | suspend and resume of a guest |
//! | `save.rs`, `restore.rs` | from a domain to a stream, and back |
//! | `transparent.rs` | guests that know nothing of being saved: their ports, grants and rings |
//! | `live.rs` | a domain that runs, in rounds |
//! | `transfer.rs`, `patient.rs` | send and receive by a link, which may fall silent |
//! | `stream.rs` | format of the stream |
//! | `progress.rs` | a line of progress on a terminal |
//! | `config.rs`, `json.rs` | configuration for `xl create` |
//! | `machine.rs` | hypervisor, xenstore and xl, as far as they are needed |
//! | `xen.rs`, `store.rs`, `xl.rs` | the real ones |
//! | `model.rs` | a machine in memory, for tests |
//! | `sys.rs` | privcmd; all `unsafe` |
#![deny(unsafe_code)]

pub mod config;
pub mod guest;
mod json;
mod live;
pub mod machine;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod patient;
mod progress;
pub mod restore;
pub mod save;
mod store;
pub mod stream;
mod sys;
pub mod transfer;
pub mod transparent;
mod xen;
pub mod xl;

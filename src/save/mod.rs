//! The saved form of a domain beside its memory: records of words (docs/migration-format.md).
//!
//! It is pure: [`Writer`] makes the records, [`image`] finds them again in a stream that may say anything. Whose state they are
//! and where that goes is `control::save`'s business. Nothing of an image is used before all of it was found right.
//!
//! | file | contents |
//! |---|---|
//! | `records.rs` | record types and their fields |
//! | `write.rs` | writing an image |
//! | `read.rs` | finding and checking the records of an image |

mod read;
mod records;
mod write;

pub use read::{Image, VcpuImage, Wrong, image};
pub use records::{
    DomainState, Fields, Header, NOWHERE, Place, RunStatePlace, Shape, Type, VcpuState,
};
pub use write::Writer;

/// Words before the body of each record: type and instance, length in bytes (`struct hvm_save_descriptor`).
const DESCRIPTOR_WORDS: usize = 2;

//! A model of what QEMU leaves out: caches that hide writes, TLBs that keep old translations, barriers that are missing.
//!
//! Pure: [`Machine`] is told what a machine does (accesses to memory, maintenance, barriers, entries of guests) and
//! answers with [`Report`]s. The plugin beside this crate tells it what a machine in QEMU does. The rules are those of
//! DDI 0406C.d: B2.2.6 and B2.2.7 (caches), B3.10 (TLBs), A3.8.3 (barriers). docs/hazards.md describes what is seen
//! and what is not.
//!
//! | module | rule |
//! |---|---|
//! | `decode` | instructions that concern caches, TLBs and translation |
//! | `lines` | lines of memory: who wrote past the caches or left a line dirty |
//! | `memory` | values of the hypervisor's stores, from which tables are read |
//! | `tables` | translation tables, entry by entry: made, broken, changed |
//! | `pending` | broken entries on their way out of the TLBs |
//! | `cpu` | a CPU's registers, and what waits for a barrier |
//! | `machine` | all events, caches |
//! | `translation` | rules of entries, TLBs and the registers that choose tables |

mod cpu;
mod decode;
mod lines;
mod machine;
mod memory;
mod pending;
mod tables;
#[cfg(test)]
mod tests;
mod translation;

pub use decode::{
    Barrier, Instruction, ItState, Operation, condition_holds, decode, is_strd, of_thumb,
};
pub use machine::{Access, Machine, Mode, Seen};
pub use pending::Erratum;

/// A hazard, once for each kind and place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Report {
    /// The rule that was broken.
    pub kind: Kind,
    /// Address of the instruction at which it showed.
    pub pc: u32,
    /// Address of the instruction that caused it: a store, or a write of a register.
    pub cause: u32,
    /// The address in memory, or the input of a translation.
    pub address: u64,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $words:literal,)*) => {
        /// A rule.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Returns the sentence that a person reads.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$kind => $words,)*
                }
            }
        }
    };
}

kinds! {
    /// Caches.
    ReadPastDirtyLine = "read past the caches: the line was written through them and not cleaned",
    /// Caches.
    WrittenPastDirtyLine = "written past the caches, and the line is dirty: its write-back destroys this",
    /// Caches.
    StaleLine = "accessed through the caches: the line was written past them and not invalidated",
    /// Caches.
    DirtyLineDropped = "invalidated without a clean, and the line is dirty: writes are lost",
    /// Caches.
    FetchedDirtyLine = "fetched past the caches: the line was written through them and not cleaned",
    /// Caches.
    FetchedStaleLine = "fetched: the instruction caches were not invalidated since the line was written",
    /// TLBs.
    LiveEntryChanged = "a valid entry was changed into another one without being invalid in between",
    /// TLBs.
    MadeTooEarly = "an entry was made valid before the old translation was out of the TLBs",
    /// TLBs.
    TornEntry = "a valid entry was written in pieces",
    /// TLBs.
    InvalidatedTooEarly = "TLBs were invalidated before the changed entry was visible: a DSB is missing",
    /// TLBs.
    NotInvalidated = "returned to a guest with an old translation in the TLBs",
    /// TLBs.
    FrameWrittenTooEarly = "a frame was written while an old translation still led to it",
    /// TLBs.
    TableReused = "a page that a walk may still use as a table was filled with something else",
    /// TLBs.
    LinkedTooEarly = "a table was linked before its entries were ordered: a DMB is missing",
    /// TLBs.
    NotPublished = "returned to a guest before a new entry was visible to walks: a DSB is missing",
    /// TLBs.
    UsedTooEarly = "a new translation was used before DSB and ISB",
    /// TLBs.
    RegimeNotSynchronized = "VTTBR was written, and used by an operation before an ISB",
    /// TLBs.
    VmidReused = "returned to a guest whose VMID still has translations of another map in the TLBs",
    /// TLBs.
    RootNotSynchronized = "memory was accessed before HTTBR or HSCTLR took effect: TLBIALLH, DSB or ISB is missing",
    /// TLBs.
    TablesNotReady = "translation was switched on before its tables were visible to walks",
    /// Interrupts.
    InterruptTooEarly = "an SGI was sent before earlier stores were visible: a DSB is missing",
    /// System registers.
    ResultTooEarly = "PAR was read before the translation's result was there: an ISB is missing",
}

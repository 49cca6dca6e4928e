//! The lock-free places of the hypervisor, with loom's atomics: their own source, as `build.rs` takes it, and each weakened in
//! one place.
#![allow(dead_code, missing_docs, unused_imports, clippy::all)]

/// `armv7::double`: plain accesses of 64 bits, which are single and no more.
pub mod double {
    use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};

    pub fn load(word: &AtomicU64) -> u64 {
        word.load(Relaxed)
    }

    pub fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
        word.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }

    pub fn store(word: &AtomicU64, value: u64) {
        word.store(value, Relaxed);
    }
}

pub mod id {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct DomId(pub u16);
}

pub mod abi {
    pub mod grant_table {
        pub const GTF_PERMIT_ACCESS: u16 = 1;
        pub const GTF_TYPE_MASK: u16 = 3;
        pub const GTF_READONLY: u16 = 4;
        pub const GTF_READING: u16 = 8;
        pub const GTF_WRITING: u16 = 16;
        pub const GTF_SUB_PAGE: u16 = 256;

        pub struct GrantEntryV1;

        #[derive(Debug)]
        pub enum GrantError {
            General,
        }
    }
}

pub mod entry_types {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Access {
        Read,
        Write,
    }
}

macro_rules! taken {
    ($($name:ident)*) => {
        $(pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        })*
    };
}

taken! {
    frame frame_put_without_release frame_put_without_acquire frame_live_without_release frame_get_without_acquire
    word word_update_relaxed word_update_that_stores_nothing_new word_replace_relaxed word_raise_relaxed
    entry entry_mark_relaxed entry_clear_relaxed
}

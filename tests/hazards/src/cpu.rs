//! The registers of a CPU, and its operations that wait for a barrier.

/// Steps after HTTBR was written, or translation switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Root {
    #[default]
    Ready,
    Written,
    Synchronized,
    Invalidating,
    Invalidated,
}

/// A new entry of the hypervisor's own.
#[derive(Clone, Copy)]
pub(crate) struct Made {
    pub(crate) input: u64,
    pub(crate) pages: u64,
    pub(crate) pc: u32,
    pub(crate) published: bool,
}

#[derive(Default)]
pub(crate) struct Cpu {
    pub(crate) runs: bool,
    pub(crate) hsctlr: u32,
    pub(crate) sctlr: u32,
    pub(crate) httbr: u64,
    pub(crate) vttbr: u64,
    pub(crate) vttbr_pc: u32,
    pub(crate) vttbr_waits: bool,
    pub(crate) root: Root,
    pub(crate) root_pc: u32,
    pub(crate) switched: bool,
    /// Lines that the next DSB completes.
    pub(crate) lines: Vec<u64>,
    pub(crate) instruction_caches: bool,
    pub(crate) par_waits: bool,
    /// Last store that no DSB has completed.
    pub(crate) stored: Option<u32>,
    /// Barriers so far: a store with the same number is not ordered.
    pub(crate) barriers: u32,
    pub(crate) unpublished: Option<(u32, u64)>,
    pub(crate) made: Vec<Made>,
}

pub(crate) const M: u32 = 1;
pub(crate) const C: u32 = 1 << 2;

impl Cpu {
    pub(crate) fn hyp_is_cached(&self) -> bool {
        self.hsctlr & (M | C) == M | C
    }
    pub(crate) fn guest_is_cached(&self) -> bool {
        self.sctlr & (M | C) == M | C
    }
    pub(crate) fn vmid(&self) -> u8 {
        (self.vttbr >> 48) as u8
    }
}

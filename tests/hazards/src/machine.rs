//! CPUs, and all rules together.

use std::collections::HashSet;

use crate::cpu::{Cpu, M, Root};
use crate::decode::{Barrier, Operation};
use crate::lines::{HYPERVISOR, Lines};
use crate::memory::Memory;
use crate::pending::{Erratum, Pending, Regime, Scope};
use crate::tables::Tables;
use crate::{Kind, Report};

/// The one that executes an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The hypervisor.
    Hyp,
    /// The guest that is loaded.
    Guest,
}

/// An access to RAM, of up to eight bytes in one word.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The CPU.
    pub cpu: usize,
    /// Address of the instruction.
    pub pc: u32,
    /// Virtual address.
    pub va: u32,
    /// Physical address.
    pub pa: u64,
    /// Bytes.
    pub size: u32,
    /// The value that is stored; `None` for a load.
    pub value: Option<u64>,
}

/// The state of a VMID.
#[derive(Clone, Copy, Default)]
pub(crate) struct Vmid {
    pub(crate) root: Option<u64>,
    /// A guest ran with it since it was invalidated.
    pub(crate) used: bool,
    /// An invalidate of all of it is under way on this CPU.
    pub(crate) flushed_by: Option<usize>,
}

/// The numbers of what was seen, so that silence means something.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs)]
pub struct Seen {
    pub accesses: u64,
    pub guest_accesses: u64,
    pub cleans: u64,
    pub invalidates: u64,
    pub entries_made: u64,
    pub entries_broken: u64,
    /// Leaves of guests' maps whose rights were changed in place.
    pub entries_changed: u64,
    pub guest_entries: u64,
    pub barriers: u64,
}

/// The model.
pub struct Machine {
    pub(crate) base: u64,
    pub(crate) memory: Memory,
    pub(crate) lines: Lines,
    pub(crate) tables: Tables,
    pub(crate) pending: Pending,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) vmids: Vec<Vmid>,
    /// For each frame: how many broken entries lead to it.
    pub(crate) led_to: Vec<u16>,
    /// For each frame: whether it is a table, or was one that a walk may still use.
    pub(crate) marks: Vec<u8>,
    /// For each frame: CPU and number of barriers at its last store.
    pub(crate) stored: Vec<u32>,
    pub(crate) reported: HashSet<Report>,
    pub(crate) reports: Vec<Report>,
    /// Translations of guests' pages, as their accesses showed them, by the low bits of the page.
    pub(crate) guest_pages: Vec<GuestPage>,
    pub(crate) seen: Seen,
}

/// A page of a guest's address space, and its frame.
#[derive(Clone, Copy, Default)]
pub(crate) struct GuestPage {
    vmid: u8,
    page: u32,
    frame: u64,
}

/// Entries of [`Machine::guest_pages`].
const GUEST_PAGES: usize = 1 << 12;

pub(crate) const TABLE: u8 = 1;
pub(crate) const RETIRED: u8 = 1 << 1;
pub(crate) const CPU_SHIFT: u32 = 28;

impl Machine {
    /// Returns a machine that has just been reset.
    pub fn new(base: u64, size: u64, cpus: usize, erratum: Erratum) -> Self {
        let frames = (size >> 12) as usize;
        Self {
            base,
            memory: Memory::new(base, size),
            lines: Lines::new(base, size),
            tables: Tables::default(),
            pending: Pending::new(erratum),
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            vmids: vec![Vmid::default(); 256],
            led_to: vec![0; frames],
            marks: vec![0; frames],
            stored: vec![0; frames],
            reported: HashSet::new(),
            reports: Vec::new(),
            guest_pages: vec![GuestPage::default(); GUEST_PAGES],
            seen: Seen::default(),
        }
    }

    /// Takes what was found since the last time.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Returns whether there is something to take.
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Returns what was seen.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Returns whether the guest that is loaded reaches memory through the caches.
    pub fn guest_is_cached(&self, cpu: usize) -> bool {
        self.cpus[cpu].guest_is_cached()
    }

    pub(crate) fn report(&mut self, kind: Kind, pc: u32, cause: u32, address: u64) {
        let report = Report {
            kind,
            pc,
            cause,
            address,
        };
        let same = Report {
            address: 0,
            ..report
        };
        if self.reported.insert(same) {
            self.reports.push(report);
        }
    }

    pub(crate) fn frame_index(&self, frame: u64) -> usize {
        frame.wrapping_sub(self.base >> 12) as usize
    }

    pub(crate) fn mark(&mut self, frames: &[u64], mark: u8, on: bool) {
        for frame in frames {
            let index = self.frame_index(*frame);
            if let Some(marks) = self.marks.get_mut(index) {
                *marks = if on { *marks | mark } else { *marks & !mark };
            }
        }
    }

    /// An access of the hypervisor's or a guest's.
    pub fn access(&mut self, mode: Mode, access: Access) {
        match mode {
            Mode::Hyp => self.hyp_access(access),
            Mode::Guest => self.guest_access(access),
        }
    }

    fn guest_access(&mut self, access: Access) {
        self.seen.guest_accesses += 1;
        let Access { cpu, pc, pa, .. } = access;
        let who = self.cpus[cpu].vmid();
        let cached = self.cpus[cpu].guest_is_cached();
        let page = access.va >> 12;
        self.guest_pages[page as usize % GUEST_PAGES] = GuestPage {
            vmid: who,
            page,
            frame: pa >> 12,
        };
        let (kind, found) = match (access.value.is_some(), cached) {
            // Its own dirty lines and what it left in its caches are the guest's affair.
            (true, true) => {
                self.lines.write_cached(pa, pc, who);
                return;
            }
            (false, true) => return,
            (true, false) => (
                Kind::WrittenPastDirtyLine,
                self.lines.write_uncached(pa, pc, who),
            ),
            (false, false) => (Kind::ReadPastDirtyLine, self.lines.read_uncached(pa)),
        };
        // Guests may look at what another one is about to clean: a mailbox.
        if let Some(found) = found.filter(|found| found.who == HYPERVISOR) {
            self.report(kind, pc, found.pc, pa);
            self.lines.forgive(pa);
        }
    }

    fn hyp_access(&mut self, access: Access) {
        self.seen.accesses += 1;
        let Access {
            cpu, pc, va, pa, ..
        } = access;
        let state = &self.cpus[cpu];
        let cached = state.hyp_is_cached();
        if state.hsctlr & M != 0 {
            if state.root != Root::Ready || state.switched {
                let cause = state.root_pc;
                self.report(Kind::RootNotSynchronized, pc, cause, u64::from(va));
                self.cpus[cpu].root = Root::Ready;
                self.cpus[cpu].switched = false;
            }
            if !self.cpus[cpu].made.is_empty() {
                self.check_use(cpu, pc, va);
            }
        }
        let (kind, found) = match (access.value.is_some(), cached) {
            (true, true) => (Kind::StaleLine, self.lines.write_cached(pa, pc, HYPERVISOR)),
            (false, true) => (Kind::StaleLine, self.lines.read_cached(pa)),
            (true, false) => (
                Kind::WrittenPastDirtyLine,
                self.lines.write_uncached(pa, pc, HYPERVISOR),
            ),
            (false, false) => (Kind::ReadPastDirtyLine, self.lines.read_uncached(pa)),
        };
        if let Some(found) = found {
            self.report(kind, pc, found.pc, pa);
            if !cached {
                self.lines.forgive(pa);
            }
        }
        if let Some(value) = access.value {
            self.hyp_store(&access, value);
        }
    }

    fn hyp_store(&mut self, access: &Access, value: u64) {
        let Access { cpu, pc, pa, .. } = *access;
        let frame = pa >> 12;
        let index = self.frame_index(frame);
        let Some((old, new)) = self.memory.store(pa, access.size, value) else {
            return;
        };
        self.cpus[cpu].stored = Some(pc);
        let (marks, led_to) = (self.marks[index], self.led_to[index]);
        self.stored[index] = (cpu as u32) << CPU_SHIFT | self.cpus[cpu].barriers;
        if led_to != 0 {
            for broken in self.pending.take_leading_to(frame) {
                self.report(Kind::FrameWrittenTooEarly, pc, broken.pc, pa);
                self.release(broken);
            }
        }
        if marks & RETIRED != 0 && new & 1 != 0 {
            for broken in self.pending.take_with_table(frame) {
                self.report(Kind::TableReused, pc, broken.pc, pa);
                self.release(broken);
            }
        }
        if marks & TABLE != 0 && old != new {
            if access.size < 8 && (old | new) & 1 != 0 {
                self.report(Kind::TornEntry, pc, pc, pa);
            }
            if let Some(change) = self.tables.change(pa, old, new) {
                self.apply(cpu, pc, change);
            }
        }
    }

    /// A barrier.
    pub fn barrier(&mut self, mode: Mode, cpu: usize, barrier: Barrier) {
        self.seen.barriers += 1;
        let through = match barrier {
            Barrier::Isb => return self.synchronize(cpu),
            Barrier::Dmb => self.pending.dmb(cpu),
            Barrier::Dsb | Barrier::DsbStores => {
                let stores = barrier == Barrier::DsbStores;
                if mode == Mode::Hyp {
                    self.complete(cpu, stores);
                }
                let others = self.cpus.iter().enumerate();
                let others = others
                    .filter(|(n, other)| *n != cpu && other.runs)
                    .fold(0, |set, (n, _)| set | 1 << n);
                self.pending.dsb(cpu, stores, others)
            }
        };
        for broken in through {
            self.release(broken);
        }
        let state = &mut self.cpus[cpu];
        state.barriers = (state.barriers + 1) & ((1 << CPU_SHIFT) - 1);
    }

    /// Completes the operations for which a DSB of the hypervisor waits.
    fn complete(&mut self, cpu: usize, stores: bool) {
        let state = &mut self.cpus[cpu];
        (state.unpublished, state.stored) = (None, None);
        for made in &mut state.made {
            made.published = true;
        }
        if stores {
            return;
        }
        if state.root == Root::Invalidating {
            state.root = Root::Invalidated;
        }
        for line in std::mem::take(&mut state.lines) {
            self.lines.complete(line);
        }
        if std::mem::take(&mut self.cpus[cpu].instruction_caches) {
            self.lines.instruction_caches_invalidated();
        }
        for vmid in &mut self.vmids {
            if vmid.flushed_by == Some(cpu) {
                (vmid.flushed_by, vmid.used) = (None, false);
            }
        }
    }

    /// A context synchronization: ISB, or an exception's entry or return.
    pub(crate) fn synchronize(&mut self, cpu: usize) {
        let state = &mut self.cpus[cpu];
        state.vttbr_waits = false;
        state.par_waits = false;
        state.switched = false;
        state.root = match state.root {
            Root::Written => Root::Synchronized,
            Root::Invalidated => Root::Ready,
            other => other,
        };
        state.made.retain(|made| !made.published);
    }

    /// The hypervisor sends an SGI.
    pub fn send_interrupt(&mut self, cpu: usize, pc: u32) {
        if let Some(cause) = self.cpus[cpu].stored {
            self.report(Kind::InterruptTooEarly, pc, cause, 0);
        }
    }

    /// ERET: the guest that is loaded runs.
    pub fn enter_guest(&mut self, cpu: usize, pc: u32) {
        self.seen.guest_entries += 1;
        self.use_vttbr(cpu);
        if !self.pending.is_empty() {
            for broken in self.pending.take_of(cpu) {
                self.report(Kind::NotInvalidated, pc, broken.pc, broken.input << 12);
                self.release(broken);
            }
            for broken in self.pending.take_reused(self.cpus[cpu].vmid()) {
                self.report(Kind::VmidReused, pc, broken.pc, 0);
            }
        }
        if let Some((cause, address)) = self.cpus[cpu].unpublished.take() {
            self.report(Kind::NotPublished, pc, cause, address);
        }
        self.synchronize(cpu);
        let vmid = usize::from(self.cpus[cpu].vmid());
        self.vmids[vmid].used = true;
    }

    /// A guest whose translation is off fetches an instruction.
    pub fn fetch(&mut self, cpu: usize, pc: u32) {
        let state = &self.cpus[cpu];
        if state.sctlr & M != 0 {
            // The block was translated while it was off.
            return;
        }
        let (regime, root) = (
            Regime::Guest(state.vmid()),
            (state.vttbr & 0xFF_FFFF_F000) >> 12,
        );
        let Some(pa) = Tables::walk(&self.memory, regime, root, u64::from(pc)) else {
            return;
        };
        let (dirty, stale) = (self.lines.dirty(pa), self.lines.fetch(pa));
        let own = self.cpus[cpu].vmid();
        if let Some(found) = dirty.filter(|found| found.who != own) {
            self.report(Kind::FetchedDirtyLine, pc, found.pc, pa);
        } else if let Some(found) = stale.filter(|found| found.who != own) {
            self.report(Kind::FetchedStaleLine, pc, found.pc, pa);
        }
    }

    /// An operation of coprocessor 15; `value` is what is written.
    pub fn operate(&mut self, mode: Mode, cpu: usize, pc: u32, operation: Operation, value: u64) {
        match mode {
            Mode::Hyp => self.hyp_operation(cpu, pc, operation, value),
            Mode::Guest => self.guest_operation(cpu, operation, value),
        }
    }

    /// Guests maintain their own; of that, what the model has to know.
    fn guest_operation(&mut self, cpu: usize, operation: Operation, value: u64) {
        match operation {
            Operation::Sctlr => self.cpus[cpu].sctlr = value as u32,
            // HCR.FB makes both reach all CPUs.
            Operation::Iciallu | Operation::Icialluis => {
                self.lines.instruction_caches_invalidated();
            }
            // Of lines that it has touched lately; a barrier follows.
            Operation::Dccmvac | Operation::Dccimvac => {
                let vmid = self.cpus[cpu].vmid();
                let (va, page) = (value, value as u32 >> 12);
                let known = self.guest_pages[page as usize % GUEST_PAGES];
                if (known.vmid, known.page) == (vmid, page) {
                    let pa = known.frame << 12 | va & 0xFFF;
                    self.lines.clean(pa);
                    self.lines.complete(pa);
                }
            }
            _ => {}
        }
    }

    fn hyp_operation(&mut self, cpu: usize, pc: u32, operation: Operation, value: u64) {
        use Operation as Op;
        match operation {
            Op::Dccmvac | Op::Dccmvau | Op::Dccimvac | Op::Dcimvac => {
                self.maintain(cpu, pc, operation, value as u32);
            }
            Op::Icialluis => self.cpus[cpu].instruction_caches = true,
            // On this CPU alone: for the predictor.
            Op::Iciallu | Op::Icimvau | Op::SetWay => {}
            Op::TlbiGuestAll => {
                self.check_vttbr(cpu, pc);
                self.flush_vmid(cpu, pc);
            }
            Op::TlbiGuest | Op::TlbiGuestPage => {
                self.check_vttbr(cpu, pc);
                self.invalidate(cpu, pc, Scope::Nothing);
            }
            Op::TlbiHypAll => {
                self.invalidate_root(cpu);
                self.invalidate(cpu, pc, Scope::Regime(Regime::Hyp));
            }
            Op::TlbiHyp => {
                self.invalidate_root(cpu);
                self.invalidate(cpu, pc, Scope::Nothing);
            }
            Op::TlbiHypPage => self.invalidate(cpu, pc, Scope::Page(value >> 12)),
            Op::TlbiAllGuests => self.invalidate(cpu, pc, Scope::AllGuests),
            Op::Sctlr => self.cpus[cpu].sctlr = value as u32,
            Op::Hsctlr => self.write_hsctlr(cpu, pc, value as u32),
            Op::Httbr => self.write_httbr(cpu, pc, value),
            Op::Vttbr => self.write_vttbr(cpu, pc, value),
            Op::Translate => {
                self.check_vttbr(cpu, pc);
                self.cpus[cpu].par_waits = true;
            }
            Op::ReadPar => {
                if self.cpus[cpu].par_waits {
                    self.report(Kind::ResultTooEarly, pc, pc, 0);
                    self.cpus[cpu].par_waits = false;
                }
            }
        }
    }

    fn maintain(&mut self, cpu: usize, pc: u32, operation: Operation, va: u32) {
        let state = &self.cpus[cpu];
        let pa = match state.hsctlr & M {
            0 => Some(u64::from(va)),
            _ => Tables::walk(&self.memory, Regime::Hyp, state.httbr >> 12, u64::from(va)),
        };
        let Some(pa) = pa else { return };
        let mut waits = false;
        if operation == Operation::Dcimvac {
            if let Some(found) = self.lines.dirty(pa) {
                self.report(Kind::DirtyLineDropped, pc, found.pc, pa);
                self.lines.forgive(pa);
            }
        } else {
            self.seen.cleans += 1;
            waits |= self.lines.clean(pa);
        }
        if matches!(operation, Operation::Dcimvac | Operation::Dccimvac) {
            waits |= self.lines.invalidate(pa);
        }
        if waits {
            self.cpus[cpu].lines.push(pa);
        }
    }
}

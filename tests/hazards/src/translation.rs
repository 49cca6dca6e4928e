//! Rules of translation: entries, TLBs and the registers that choose tables.

use crate::Kind;
use crate::cpu::{C, M, Made, Root};
use crate::machine::{CPU_SHIFT, Machine, RETIRED, TABLE};
use crate::pending::{Broken, Regime, Scope};
use crate::tables::{Change, Entry, Rights, Tables};

impl Machine {
    /// A new entry of this CPU's, used before DSB and ISB.
    pub(crate) fn check_use(&mut self, cpu: usize, pc: u32, va: u32) {
        let page = u64::from(va >> 12);
        let made = self.cpus[cpu].made.iter();
        let early = made
            .filter(|made| page.wrapping_sub(made.input) < made.pages)
            .map(|made| made.pc)
            .next();
        if let Some(cause) = early {
            self.report(Kind::UsedTooEarly, pc, cause, u64::from(va));
            self.cpus[cpu].made.clear();
        }
    }

    pub(crate) fn apply(&mut self, cpu: usize, pc: u32, change: Change) {
        if let Some(rights) = change.rights() {
            self.change_rights(cpu, pc, &change, rights);
            return;
        }
        let address = change.input << 12;
        if change.old != Entry::Invalid && change.new != Entry::Invalid {
            self.report(Kind::LiveEntryChanged, pc, pc, address);
        }
        if change.old != Entry::Invalid {
            self.break_entry(cpu, pc, &change);
        }
        if change.new != Entry::Invalid {
            self.make_entry(cpu, pc, &change);
        }
    }

    fn change_rights(&mut self, cpu: usize, pc: u32, change: &Change, rights: Rights) {
        self.seen.entries_changed += 1;
        match rights {
            // The frame stays mapped, so nobody waits for its release.
            Rights::Fewer => self.pending.add(Broken::entry(
                change.regime,
                change.input,
                change.pages,
                cpu,
                pc,
            )),
            Rights::More => self.cpus[cpu].unpublished = Some((pc, change.input << 12)),
        }
    }

    fn break_entry(&mut self, cpu: usize, pc: u32, change: &Change) {
        self.seen.entries_broken += 1;
        let mut broken = Broken::entry(change.regime, change.input, change.pages, cpu, pc);
        match change.old {
            Entry::Leaf(frame, _) => {
                let first = frame & !(change.pages - 1);
                broken.frames = Some((first, change.pages));
                self.count_leading(first, change.pages, 1);
            }
            Entry::Table(below) => {
                broken.tables = self.tables.forget(&self.memory, below);
                self.mark(&broken.tables, TABLE, false);
                self.mark(&broken.tables, RETIRED, true);
            }
            Entry::Invalid => {}
        }
        self.pending.add(broken);
    }

    fn make_entry(&mut self, cpu: usize, pc: u32, change: &Change) {
        self.seen.entries_made += 1;
        let Change {
            regime,
            input,
            pages,
            ..
        } = *change;
        for broken in self.pending.take_overlapping(regime, input, pages) {
            // A change in place has been reported.
            if broken.pc != pc {
                self.report(Kind::MadeTooEarly, pc, broken.pc, input << 12);
            }
            self.release(broken);
        }
        if let Entry::Table(below) = change.new {
            let index = self.frame_index(below);
            let now = (cpu as u32) << CPU_SHIFT | self.cpus[cpu].barriers;
            if self.stored.get(index) == Some(&now) {
                self.report(Kind::LinkedTooEarly, pc, pc, below << 12);
            }
        }
        let tables = self.tables.adopt_below(&self.memory, change);
        self.mark(&tables, TABLE, true);
        let state = &mut self.cpus[cpu];
        match regime {
            Regime::Guest(_) => state.unpublished = Some((pc, input << 12)),
            Regime::Hyp => state.made.push(Made {
                input,
                pages,
                pc,
                published: false,
            }),
        }
    }

    fn count_leading(&mut self, first: u64, count: u64, change: i16) {
        let start = self.frame_index(first).min(self.led_to.len());
        let end = start.saturating_add(count as usize).min(self.led_to.len());
        for leading in &mut self.led_to[start..end] {
            *leading = leading.saturating_add_signed(change);
        }
    }

    /// Frames and tables of a broken entry are free for anything.
    pub(crate) fn release(&mut self, broken: Broken) {
        if let Some((first, count)) = broken.frames {
            self.count_leading(first, count, -1);
        }
        self.mark(&broken.tables, RETIRED, false);
    }

    pub(crate) fn check_vttbr(&mut self, cpu: usize, pc: u32) {
        if std::mem::take(&mut self.cpus[cpu].vttbr_waits) {
            let cause = self.cpus[cpu].vttbr_pc;
            self.report(Kind::RegimeNotSynchronized, pc, cause, 0);
        }
    }

    pub(crate) fn invalidate(&mut self, cpu: usize, pc: u32, scope: Scope) {
        self.seen.invalidates += 1;
        if let Some((cause, address)) = self.pending.invalidate(cpu, scope) {
            self.report(Kind::InvalidatedTooEarly, pc, cause, address);
        }
    }

    pub(crate) fn flush_vmid(&mut self, cpu: usize, pc: u32) {
        self.use_vttbr(cpu);
        let number = self.cpus[cpu].vmid();
        self.invalidate(cpu, pc, Scope::Regime(Regime::Guest(number)));
        let vmid = &mut self.vmids[usize::from(number)];
        vmid.flushed_by = Some(cpu);
        // An empty map is one that begins or ends. When it is used it is followed anew.
        if let Some(root) = vmid.root
            && Tables::is_root_empty(&self.memory, root)
        {
            vmid.root = None;
            let gone = self.tables.forget_regime(Regime::Guest(number));
            self.mark(&gone, TABLE, false);
        }
    }

    pub(crate) fn invalidate_root(&mut self, cpu: usize) {
        let state = &mut self.cpus[cpu];
        state.root = match state.root {
            Root::Synchronized => Root::Invalidating,
            // While translation is off nothing new is cached.
            Root::Written if state.hsctlr & M == 0 => Root::Invalidating,
            other => other,
        };
    }

    pub(crate) fn write_hsctlr(&mut self, cpu: usize, pc: u32, value: u32) {
        let state = &mut self.cpus[cpu];
        let on = value & M != 0 && state.hsctlr & M == 0;
        state.hsctlr = value;
        state.root_pc = pc;
        if !on {
            return;
        }
        state.runs = true;
        state.switched = true;
        if state.root != Root::Ready {
            state.root = Root::Ready;
            self.report(Kind::RootNotSynchronized, pc, pc, 0);
        }
        let root = self.cpus[cpu].httbr >> 12;
        let now = (cpu as u32) << CPU_SHIFT | self.cpus[cpu].barriers;
        let mut tables = Tables::default();
        for frame in tables.adopt_root(&self.memory, Regime::Hyp, root) {
            let index = self.frame_index(frame);
            let waits = self.stored.get(index) == Some(&now);
            let stale = (0..64).find_map(|n| self.lines.stale((frame << 12) + n * 64));
            if waits || (stale.is_some() && value & C != 0) {
                let cause = stale.map_or(pc, |found| found.pc);
                self.report(Kind::TablesNotReady, pc, cause, frame << 12);
            }
        }
    }

    pub(crate) fn write_httbr(&mut self, cpu: usize, pc: u32, value: u64) {
        let state = &mut self.cpus[cpu];
        (state.root, state.root_pc) = (Root::Written, pc);
        state.httbr = value & 0xFF_FFFF_F000;
        let root = state.httbr >> 12;
        if !self.tables.is_table(root) {
            let tables = self.tables.adopt_root(&self.memory, Regime::Hyp, root);
            self.mark(&tables, TABLE, true);
        }
    }

    pub(crate) fn write_vttbr(&mut self, cpu: usize, pc: u32, value: u64) {
        let state = &mut self.cpus[cpu];
        if state.vttbr == value {
            return;
        }
        (state.vttbr, state.vttbr_pc, state.vttbr_waits) = (value, pc, true);
    }

    /// VTTBR is used: by a guest's entry or by an invalidate. It may name a map that is gone until then.
    pub(crate) fn use_vttbr(&mut self, cpu: usize) {
        let state = &self.cpus[cpu];
        let (value, pc) = (state.vttbr, state.vttbr_pc);
        let number = state.vmid();
        let root = (value & 0xFF_FFFF_F000) >> 12;
        let vmid = &mut self.vmids[usize::from(number)];
        if number == 0 || vmid.root == Some(root) {
            return;
        }
        let other = vmid.root.replace(root).is_some();
        if vmid.used {
            vmid.used = false;
            self.pending.add(Broken::vmid(number, cpu, pc));
        }
        let regime = Regime::Guest(number);
        if other {
            let gone = self.tables.forget_regime(regime);
            self.mark(&gone, TABLE, false);
        }
        let tables = self.tables.adopt_root(&self.memory, regime, root);
        self.mark(&tables, TABLE, true);
    }
}

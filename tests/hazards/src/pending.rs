//! Broken entries on their way out of the TLBs (DDI 0406C.d B3.10.1): store, DSB, invalidate, DSB.

/// Steps of an invalidate that the processor needs (erratum 798181).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Erratum {
    /// One invalidate and DSB.
    None,
    /// Two of them.
    Repeat,
    /// Two of them, and a barrier on all other CPUs.
    RepeatAndFence,
}

/// The owner of a set of translations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Regime {
    Hyp,
    Guest(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Walks may still see the old entry.
    Stored,
    /// Walks no longer see it; TLBs may hold it.
    Visible,
    /// An invalidate by this CPU is under way.
    Invalidating(usize),
    /// The first one is complete, and the processor needs another.
    Once(usize),
    /// The second one is under way.
    Again(usize),
    /// These other CPUs have to execute a barrier.
    Fencing(u32),
}

/// An entry, or all of a VMID, that is no longer valid.
#[derive(Debug)]
pub struct Broken {
    pub regime: Regime,
    /// First input page, and number of pages.
    pub input: u64,
    pub pages: u64,
    /// First frame of a leaf, and number of frames.
    pub frames: Option<(u64, u64)>,
    /// Tables that a walk may still use.
    pub tables: Vec<u64>,
    pub cpu: usize,
    pub pc: u32,
    /// Stands for a whole VMID, and no entry.
    pub reused: bool,
    phase: Phase,
}

impl Broken {
    pub fn entry(regime: Regime, input: u64, pages: u64, cpu: usize, pc: u32) -> Self {
        Self {
            regime,
            input,
            pages,
            frames: None,
            tables: Vec::new(),
            cpu,
            pc,
            reused: false,
            phase: Phase::Stored,
        }
    }

    /// All translations of a VMID that has got another map.
    pub fn vmid(vmid: u8, cpu: usize, pc: u32) -> Self {
        Self {
            reused: true,
            phase: Phase::Visible,
            ..Self::entry(Regime::Guest(vmid), 0, u64::MAX, cpu, pc)
        }
    }

    fn overlaps(&self, input: u64, pages: u64) -> bool {
        self.input < input.saturating_add(pages) && input < self.input.saturating_add(self.pages)
    }
}

/// An invalidate that reaches all CPUs.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    Regime(Regime),
    /// A page of the hypervisor's.
    Page(u64),
    AllGuests,
    /// No broken entry: counts for erratum 798181 alone.
    Nothing,
}

/// All broken entries.
pub struct Pending {
    list: Vec<Broken>,
    erratum: Erratum,
}

impl Pending {
    pub fn new(erratum: Erratum) -> Self {
        Self {
            list: Vec::new(),
            erratum,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn add(&mut self, broken: Broken) {
        self.list.push(broken);
    }

    /// An invalidate begins on `cpu`. Returns the entry that was not visible to walks yet.
    pub fn invalidate(&mut self, cpu: usize, scope: Scope) -> Option<(u32, u64)> {
        let mut early = None;
        for broken in &mut self.list {
            let reached = match scope {
                Scope::Regime(regime) => broken.regime == regime,
                Scope::Page(page) => {
                    broken.regime == Regime::Hyp
                        && broken.frames.is_some()
                        && broken.overlaps(page, 1)
                }
                Scope::AllGuests => broken.regime != Regime::Hyp,
                Scope::Nothing => false,
            };
            match broken.phase {
                Phase::Once(by) if by == cpu => broken.phase = Phase::Again(cpu),
                Phase::Visible if reached => broken.phase = Phase::Invalidating(cpu),
                Phase::Stored if reached && broken.cpu == cpu => {
                    early = Some((broken.pc, broken.input << 12));
                    broken.phase = Phase::Invalidating(cpu);
                }
                _ => {}
            }
        }
        early
    }

    /// A DSB on `cpu`; `stores`: of stores alone. `others` are the CPUs that run beside it. Returns what is through.
    pub fn dsb(&mut self, cpu: usize, stores: bool, others: u32) -> Vec<Broken> {
        let erratum = self.erratum;
        for broken in &mut self.list {
            match broken.phase {
                Phase::Stored if broken.cpu == cpu => broken.phase = Phase::Visible,
                Phase::Invalidating(by) if by == cpu && !stores => {
                    broken.phase = match erratum {
                        Erratum::None => Phase::Fencing(0),
                        _ => Phase::Once(cpu),
                    };
                }
                Phase::Again(by) if by == cpu && !stores => {
                    // The hypervisor's own translations are used under locks, which are barriers.
                    let fence = erratum == Erratum::RepeatAndFence && broken.regime != Regime::Hyp;
                    broken.phase = Phase::Fencing(if fence { others } else { 0 });
                }
                _ => {}
            }
        }
        self.dmb(cpu)
    }

    /// A barrier of accesses on `cpu`. Returns what is through.
    pub fn dmb(&mut self, cpu: usize) -> Vec<Broken> {
        self.take(|broken| match &mut broken.phase {
            Phase::Fencing(others) => {
                *others &= !(1 << cpu);
                *others == 0
            }
            _ => false,
        })
    }

    /// Takes out what `cpu` has broken.
    pub fn take_of(&mut self, cpu: usize) -> Vec<Broken> {
        self.take(|broken| broken.cpu == cpu && !broken.reused)
    }

    /// Takes out the VMID whose translations are another map's.
    pub fn take_reused(&mut self, vmid: u8) -> Vec<Broken> {
        self.take(|broken| broken.reused && broken.regime == Regime::Guest(vmid))
    }

    /// Takes out what is in the way of a new entry.
    pub fn take_overlapping(&mut self, regime: Regime, input: u64, pages: u64) -> Vec<Broken> {
        self.take(|broken| {
            !broken.reused && broken.regime == regime && broken.overlaps(input, pages)
        })
    }

    /// Takes out what leads to `frame`.
    pub fn take_leading_to(&mut self, frame: u64) -> Vec<Broken> {
        self.take(|broken| {
            broken
                .frames
                .is_some_and(|(first, count)| frame.wrapping_sub(first) < count)
        })
    }

    /// Takes out what a walk may use `table` for.
    pub fn take_with_table(&mut self, table: u64) -> Vec<Broken> {
        self.take(|broken| broken.tables.contains(&table))
    }

    fn take(&mut self, mut which: impl FnMut(&mut Broken) -> bool) -> Vec<Broken> {
        let mut taken = Vec::new();
        let mut n = 0;
        while n < self.list.len() {
            if which(&mut self.list[n]) {
                taken.push(self.list.swap_remove(n));
            } else {
                n += 1;
            }
        }
        taken
    }
}

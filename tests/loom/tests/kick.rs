//! Block against kick (docs/locking.md): who blocks stores its reason and looks at `work`; who kicks stores `work` and looks at
//! the reason. One of the two must see the other's store, which only sequentially consistent accesses promise. Loom does not
//! know those, so here are all outcomes of two CPUs with store buffers, and a look at the source's orderings.

/// A CPU's progress: it stores to its own word, then loads the other one's.
#[derive(Clone, Copy, Default)]
struct Cpu {
    stored: bool,
    /// The store has reached memory.
    drained: bool,
    seen: Option<bool>,
}

/// Returns whether some order of events leaves both CPUs without the other's store.
fn wake_up_is_lost(stores_are_ordered: bool, cpus: [Cpu; 2]) -> bool {
    if let [Some(first), Some(second)] = cpus.map(|cpu| cpu.seen) {
        return !first && !second;
    }
    (0..2).any(|at| {
        let mut next = cpus;
        let other = cpus[1 - at];
        let cpu = &mut next[at];
        let drains = cpu.stored && !cpu.drained && {
            let mut next = cpus;
            next[at].drained = true;
            wake_up_is_lost(stores_are_ordered, next)
        };
        let steps = if !cpu.stored {
            cpu.stored = true;
            // A sequentially consistent store is in memory before the load that follows it.
            cpu.drained = stores_are_ordered;
            wake_up_is_lost(stores_are_ordered, next)
        } else if cpu.seen.is_none() {
            cpu.seen = Some(other.drained);
            wake_up_is_lost(stores_are_ordered, next)
        } else {
            false
        };
        drains || steps
    })
}

/// The accesses to the two words in the source that are not sequentially consistent.
fn weak_accesses(source: &str) -> Vec<&str> {
    let mut weak = Vec::new();
    for word in ["self.work", "self.halt", "vcpu.work", "vcpu.halt"] {
        for (at, _) in source.match_indices(word) {
            let access = &source[at..];
            let access = &access[..access.find([';', '}', '{']).unwrap_or(access.len())];
            let is_weak = |order| access.contains(&format!("Ordering::{order}"));
            if ["Relaxed", "Acquire", "Release", "AcqRel"].into_iter().any(is_weak) {
                weak.push(access);
            }
        }
    }
    weak
}

fn source() -> String {
    ["mod.rs", "run.rs"].map(|file| std::fs::read_to_string(format!("../../src/vcpu/{file}")).unwrap()).join("\n")
}

#[test]
fn a_kick_and_a_block_do_not_miss_each_other() {
    assert!(!wake_up_is_lost(true, Default::default()));
    assert_eq!(weak_accesses(&source()), Vec::<&str>::new());
    assert!(source().contains("self.work.fetch_or(what, Ordering::SeqCst)"));
}

#[test]
fn a_weaker_ordering_is_noticed() {
    assert!(wake_up_is_lost(false, Default::default()));
    let weaker =
        source().replace("self.work.fetch_or(what, Ordering::SeqCst)", "self.work.fetch_or(what, Ordering::Relaxed)");
    assert_eq!(weak_accesses(&weaker).len(), 1);
}

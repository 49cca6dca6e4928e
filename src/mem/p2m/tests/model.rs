//! Two domains, one of which maps pages of the other, against flat maps and the audit.

use std::collections::BTreeMap;

use armv7::addr::Mfn;
use proptest::prelude::*;

use super::{A, B, CACHED, TLB, assert_cached_are_live, gfn, machine, populate, touch};
use crate::mem::Memory;
use crate::mem::p2m::{Access, P2m, P2mType, PoolLimit, Removed};

#[derive(Clone, Debug)]
enum Op {
    Populate(bool, u32, u32),
    Decrease(bool, u32, u32),
    Foreign(u32, u32, bool),
    Unforeign(u32, u32),
    Touch(bool, u32),
    Merge(u32),
    Pool(u32),
    Destroy,
}

fn at() -> impl Strategy<Value = u32> {
    prop_oneof![
        0u32..8,
        508u32..516,
        1020u32..1030,
        Just((1 << 18) - 1),
        Just(1 << 18)
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let order = prop_oneof![3 => Just(0u32), 1 => Just(2), 2 => Just(9)];
    let count = prop_oneof![3 => Just(1u32), 1 => 1u32..20, 1 => Just(512), 1 => Just(600)];
    prop_oneof![
        4 => (any::<bool>(), at(), order).prop_map(|(a, at, order)| Op::Populate(a, at & !((1 << order) - 1), order)),
        4 => (any::<bool>(), at(), count.clone()).prop_map(|(a, at, count)| Op::Decrease(a, at, count)),
        3 => (at(), at(), any::<bool>()).prop_map(|(to, from, write)| Op::Foreign(to, from, write)),
        2 => (at(), count).prop_map(|(at, count)| Op::Unforeign(at, count)),
        4 => (any::<bool>(), at()).prop_map(|(a, at)| Op::Touch(a, at)),
        1 => at().prop_map(Op::Merge),
        1 => (0u32..12).prop_map(Op::Pool),
        1 => Just(Op::Destroy),
    ]
}

/// Two domains; B maps pages of A.
struct World<'m> {
    memory: &'m Memory,
    maps: [P2m<'m>; 2],
    model: [BTreeMap<u32, (Mfn, P2mType)>; 2],
}

impl World<'_> {
    fn note(&mut self, which: usize, at: u32, count: u32) {
        for n in at..at + count {
            let entry = self.maps[which].lookup(gfn(n)).unwrap();
            assert!(
                self.model[which]
                    .insert(n, (entry.mfn, entry.kind))
                    .is_none()
            );
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Populate(a, at, order) => {
                let (which, owner) = if a { (0, A) } else { (1, B) };
                let (account, tables) = (self.memory.account(owner), self.maps[which].pool_pages());
                match populate(self.memory, &mut self.maps[which], owner, at, order) {
                    Ok(()) => self.note(which, at, 1 << order),
                    Err(error) => {
                        assert_eq!(self.memory.account(owner), account, "{error:?} left pages");
                        assert_eq!(self.maps[which].pool_pages(), tables);
                    }
                }
            }
            Op::Decrease(a, at, count) => {
                self.unmap(usize::from(!a), at, count, P2mType::is_own_ram)
            }
            Op::Unforeign(at, count) => self.unmap(1, at, count, P2mType::is_foreign),
            Op::Foreign(to, from, write) => {
                let [theirs, mine] = &mut self.maps;
                let Some((page, _)) = theirs.pin(gfn(from), Access::Read) else {
                    return;
                };
                let kind = if write {
                    P2mType::ForeignRw
                } else {
                    P2mType::ForeignRo
                };
                let mfn = page.into_raw();
                let mut removed = Removed::new();
                if mine.replace(gfn(to), mfn, kind, &mut removed).is_err() {
                    self.memory.put(mfn);
                    return;
                }
                let old = removed.runs().first().map(|run| (run.mfn, run.kind));
                mine.release(removed);
                assert_eq!(self.model[1].insert(to, (mfn, kind)), old);
            }
            Op::Touch(a, at) => {
                let which = usize::from(!a);
                let seen = touch(&self.maps[which], at);
                assert_eq!(seen, self.model[which].get(&at).map(|entry| entry.0));
            }
            Op::Merge(at) => self.maps[0].merge(gfn(at)),
            Op::Pool(pages) => {
                let _ = self.maps[0].resize_pool(pages, 100);
            }
            Op::Destroy => {
                while !self.maps[0].relinquish(64) {
                    assert_cached_are_live(self.memory);
                }
                self.model[0].clear();
            }
        }
    }

    fn unmap(&mut self, which: usize, at: u32, count: u32, accept: impl Fn(P2mType) -> bool) {
        let mut removed = Removed::new();
        let result = self.maps[which].unmap(gfn(at), count, 700, accept, &mut removed);
        // The flush is still owed, so a frame that a CPU has cached must not have a new owner yet.
        assert_cached_are_live(self.memory);
        match result {
            Ok(frames) => {
                let gone = self.model[which].range(at..at + frames).count();
                assert_eq!(gone as u32, removed.frames());
                self.model[which].retain(|n, _| !(at..at + frames).contains(n));
            }
            Err(_) => assert!(removed.is_empty()),
        }
        self.maps[which].release(removed);
    }

    fn check(&self) {
        let mut all = Vec::new();
        for (map, model) in self.maps.iter().zip(&self.model) {
            let mut found = BTreeMap::new();
            map.visit(gfn(0), |run| {
                for n in 0..run.count {
                    found.insert(
                        run.gfn.raw() + n,
                        (run.mfn.checked_add(n).unwrap(), run.kind),
                    );
                }
                true
            });
            assert_eq!(&found, model);
            all.extend(found.values().map(|entry| entry.0));
        }
        assert_eq!(self.memory.audit_list(all), Ok(()));
        CACHED.with_borrow(|cached| {
            for ((vttbr, at), mfn) in cached {
                let map = self.maps.iter().find(|map| map.vttbr() == *vttbr).unwrap();
                assert_eq!(
                    map.lookup(gfn(*at)).map(|entry| entry.mfn),
                    Some(*mfn),
                    "stale"
                );
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn maps_and_counts_agree_whatever_happens(ops in proptest::collection::vec(op(), 1..50), pool in 0u32..10) {
        let memory = machine();
        let before = memory.free_pages();
        let maps = [P2m::new(&memory, TLB, PoolLimit::Pages(pool)).unwrap(), P2m::new(&memory, TLB, PoolLimit::Unlimited).unwrap()];
        let mut world = World { memory: &memory, maps, model: Default::default() };
        for (n, op) in ops.iter().enumerate() {
            world.apply(op);
            if n % 4 == 3 || n + 1 == ops.len() {
                world.check();
            }
        }
        drop(world);
        prop_assert_eq!(memory.free_pages(), before);
        prop_assert_eq!(memory.audit_list([]), Ok(()));
        memory.close_account(A);
        memory.close_account(B);
        prop_assert_eq!([memory.take_emptied(), memory.take_emptied()], [Some(A), Some(B)]);
    }
}

//! Random histories of three domains, with entries rewritten at will, against a simple model.
//!
//! For each step, [`Model`] gives the expected result, the shared word after it, and the number of references on each
//! frame.

use armv7::addr::Mfn;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;

use super::reference::{DOMAINS, Model};
use super::{Memory, Page, gfn, mfn, shared, table, word};
use crate::abi::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READONLY, GrantError, MAP_HOST, MAP_READONLY, MapGrantRef,
};
use crate::grant::{
    Access, ENTRIES_PER_FRAME, GrantHandle, GrantRef, GrantTable, GrantedFrame, MapRequest,
    Mapping, Search, Step,
};
use crate::id::DomId;

const REFS: [u32; 6] = [0, 1, 511, 512, 1023, 1024];

#[derive(Clone, Debug)]
enum Op {
    Write {
        dom: usize,
        at: u32,
        flags: u16,
        by: usize,
        frame: u32,
    },
    Map {
        mapper: usize,
        granter: usize,
        at: u32,
        access: Access,
    },
    Unmap {
        mapper: usize,
        pick: usize,
        address: Address,
    },
    BeginCopy {
        by: usize,
        granter: usize,
        at: u32,
        access: Access,
    },
    EndCopy {
        pick: usize,
    },
    Swap {
        dom: usize,
        a: u32,
        b: u32,
    },
    Remap {
        dom: usize,
        gfn: u32,
        frame: Option<(u32, bool)>,
    },
    Destroy {
        dom: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Address {
    Right,
    Wrong,
    Zero,
    StaleHandle,
}

fn op() -> impl Strategy<Value = Op> {
    let dom = || 0..DOMAINS;
    let at = || select(&REFS[..]);
    let access = || select(&[Access::Read, Access::Write][..]);
    let flags = prop_oneof![
        6 => Just(GTF_PERMIT_ACCESS),
        2 => Just(GTF_PERMIT_ACCESS | GTF_READONLY),
        1 => Just(0),
        1 => any::<u16>(),
    ];
    let frame = prop_oneof![8 => 0x10..0x19u32, 1 => any::<u32>()];
    let address = select(
        &[
            Address::Right,
            Address::Right,
            Address::Right,
            Address::Wrong,
            Address::Zero,
            Address::StaleHandle,
        ][..],
    );
    let target = proptest::option::weighted(0.8, (0..4u32, any::<bool>()));
    prop_oneof![
        8 => (dom(), at(), flags, dom(), frame)
            .prop_map(|(dom, at, flags, by, frame)| Op::Write { dom, at, flags, by, frame }),
        12 => (dom(), dom(), at(), access())
            .prop_map(|(mapper, granter, at, access)| Op::Map { mapper, granter, at, access }),
        8 => (dom(), any::<usize>(), address)
            .prop_map(|(mapper, pick, address)| Op::Unmap { mapper, pick, address }),
        6 => (dom(), dom(), at(), access())
            .prop_map(|(by, granter, at, access)| Op::BeginCopy { by, granter, at, access }),
        4 => any::<usize>().prop_map(|pick| Op::EndCopy { pick }),
        2 => (dom(), at(), at()).prop_map(|(dom, a, b)| Op::Swap { dom, a, b }),
        3 => (dom(), 0x10..0x18u32, target)
            .prop_map(|(dom, gfn, frame)| Op::Remap { dom, gfn, frame }),
        1 => dom().prop_map(|dom| Op::Destroy { dom }),
    ]
}

struct World {
    tables: Vec<GrantTable<Page>>,
    memories: Vec<Memory>,
    handles: Vec<Vec<(GrantHandle, Mapping)>>,
    copies: Vec<(usize, usize, u32, Access)>,
    places: u32,
    model: Model,
}

impl World {
    fn new() -> Self {
        let memory = |dom: usize| {
            let mut memory = Memory::new();
            for frame in memory.map.values_mut() {
                frame.mfn = mfn(frame.mfn.raw() + 0x1000 * dom as u32);
            }
            memory
        };
        Self {
            tables: (0..DOMAINS).map(|_| table(2, 2, 1)).collect(),
            memories: (0..DOMAINS).map(memory).collect(),
            handles: vec![Vec::new(); DOMAINS],
            copies: Vec::new(),
            places: 1,
            model: Model::default(),
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Write {
                dom,
                at,
                flags,
                by,
                frame,
            } => self.write(dom, at, flags, by, frame),
            Op::Map {
                mapper,
                granter,
                at,
                access,
            } => self.map(mapper, granter, at, access),
            Op::Unmap {
                mapper,
                pick,
                address,
            } => self.unmap(mapper, pick, address),
            Op::BeginCopy {
                by,
                granter,
                at,
                access,
            } => {
                if !self.model.dead[by] && self.acquire(granter, at, by, access).is_ok() {
                    self.copies.push((by, granter, at, access));
                }
            }
            Op::EndCopy { pick } => {
                if let Some(index) = pick.checked_rem(self.copies.len()) {
                    let (_, granter, at, access) = self.copies.swap_remove(index);
                    self.release(granter, at, access);
                }
            }
            Op::Swap { dom, a, b } => self.swap(dom, a, b),
            Op::Remap {
                dom,
                gfn: at,
                frame,
            } => {
                let base = 0x1100 * dom as u32;
                let map = &mut self.memories[dom].map;
                match frame {
                    Some((n, writable)) => {
                        map.insert(
                            gfn(at),
                            GrantedFrame {
                                mfn: mfn(base + n),
                                writable,
                            },
                        );
                    }
                    None => {
                        map.remove(&gfn(at));
                    }
                }
            }
            Op::Destroy { dom } => self.destroy(dom),
        }
        self.check();
    }

    fn write(&mut self, dom: usize, at: u32, flags: u16, by: usize, frame: u32) {
        if self.model.dead[dom] || at >= 2 * ENTRIES_PER_FRAME {
            return;
        }
        super::write(&self.tables[dom], at, flags, DomId(by as u16), frame);
        let word = (by as u32) << 16 | u32::from(flags);
        self.model.words.insert((dom, at), (word, frame));
    }

    fn acquire(
        &mut self,
        granter: usize,
        at: u32,
        by: usize,
        access: Access,
    ) -> Result<Mfn, GrantError> {
        let expected = self
            .model
            .acquire(&self.memories[granter], (granter, at), by, access);
        let answer = self.tables[granter].acquire(
            GrantRef(at),
            DomId(by as u16),
            access,
            &mut self.memories[granter],
        );
        assert_eq!(answer.map(|pinned| pinned.mfn), expected);
        expected
    }

    fn release(&mut self, granter: usize, at: u32, access: Access) {
        self.model.release((granter, at), access);
        self.tables[granter].release(GrantRef(at), access, &mut self.memories[granter]);
    }

    fn map(&mut self, mapper: usize, granter: usize, at: u32, access: Access) {
        if self.model.dead[mapper] {
            return;
        }
        let place = self.places;
        self.places += 1;
        let request = MapRequest::decode(&MapGrantRef {
            host_addr: u64::from(place) << 12,
            flags: MAP_HOST
                | if access == Access::Read {
                    MAP_READONLY
                } else {
                    0
                },
            grant_ref: at,
            dom: granter as u16,
            ..MapGrantRef::ZERO
        })
        .expect("the request is well-formed");
        if let Ok(mfn) = self.acquire(granter, at, mapper, access) {
            let mapping = request.mapping(gfn(place), mfn);
            match self.tables[mapper].room() {
                Ok(vacancy) => self.handles[mapper].push((vacancy.record(mapping), mapping)),
                Err(_) => self.release(granter, at, access),
            }
        }
    }

    fn unmap(&mut self, mapper: usize, pick: usize, address: Address) {
        let Some(index) = pick.checked_rem(self.handles[mapper].len()) else {
            return;
        };
        let (handle, mapping) = self.handles[mapper][index];
        let host_addr = u64::from(mapping.gfn.raw()) << 12;
        let table = &mut self.tables[mapper];
        match address {
            Address::Zero => assert_eq!(table.unmap(handle, 0), Ok(None)),
            Address::Wrong => {
                let refused = table.unmap(handle, host_addr ^ 0x10_0000_0000);
                assert_eq!(refused, Err(GrantError::General));
            }
            Address::Right | Address::StaleHandle => {
                assert_eq!(table.unmap(handle, host_addr), Ok(Some(mapping)));
                let again = table.unmap(handle, host_addr);
                assert_eq!(again, Err(GrantError::BadHandle));
                let _ = self.handles[mapper].swap_remove(index);
                self.release(
                    mapping.granter.0.into(),
                    mapping.grant_ref.0,
                    mapping.access,
                );
            }
        }
    }

    fn swap(&mut self, dom: usize, a: u32, b: u32) {
        let end = 2 * ENTRIES_PER_FRAME;
        let in_use = |at| self.model.uses.contains_key(&(dom, at));
        let expected = if self.model.dead[dom] || a >= end || b >= end {
            Err(GrantError::BadGrantRef)
        } else if a != b && (in_use(a) || in_use(b)) {
            Err(GrantError::Again)
        } else {
            Ok(())
        };
        assert_eq!(self.tables[dom].swap(GrantRef(a), GrantRef(b)), expected);
        if expected.is_ok() {
            let first = self.model.words.get(&(dom, a)).copied().unwrap_or_default();
            let second = self.model.words.insert((dom, b), first).unwrap_or_default();
            self.model
                .words
                .insert((dom, a), if a == b { first } else { second });
        }
    }

    /// Ends a domain as its destruction does: its own copies are over, its mappings go in steps, its frames go.
    fn destroy(&mut self, dom: usize) {
        let mut copies = std::mem::take(&mut self.copies);
        for (_, granter, at, access) in copies.extract_if(.., |copy| copy.0 == dom) {
            self.release(granter, at, access);
        }
        self.copies = copies;
        self.tables[dom].close();
        self.model.dead[dom] = true;
        while self.tables[dom].take_frame().is_some() {}
        let mut rounds = 0;
        loop {
            let mut budget = 50;
            match self.tables[dom].release_next(&mut budget) {
                Step::Release(mapping) => {
                    self.release(
                        mapping.granter.0.into(),
                        mapping.grant_ref.0,
                        mapping.access,
                    );
                }
                Step::More => {}
                Step::Done => break,
            }
            rounds += 1;
            assert!(
                rounds <= 300,
                "one unit of handles is emptied in bounded steps"
            );
        }
        self.handles[dom].clear();
    }

    fn check(&self) {
        for dom in 0..DOMAINS {
            let table = &self.tables[dom];
            let used = self
                .model
                .uses
                .keys()
                .filter(|entry| entry.0 == dom)
                .count();
            assert_eq!(table.pinned() as usize, used);
            assert_eq!(table.mappings() as usize, self.handles[dom].len());
            assert_eq!(table.unstable(), 0);
            for (mfn, refs) in &self.memories[dom].refs {
                assert_eq!(
                    *refs,
                    self.model.references(dom, *mfn),
                    "references on {mfn:?}"
                );
            }
            if self.model.dead[dom] {
                continue;
            }
            for at in REFS.into_iter().filter(|at| *at < 2 * ENTRIES_PER_FRAME) {
                let (expected, _) = self
                    .model
                    .words
                    .get(&(dom, at))
                    .copied()
                    .unwrap_or_default();
                assert_eq!(word(table, at), expected, "d{dom} entry {at}");
            }
        }
    }

    fn end(&mut self) {
        for dom in 0..DOMAINS {
            self.destroy(dom);
            self.check();
        }
        for (table, memory) in self.tables.iter().zip(&self.memories) {
            assert!(table.is_idle());
            assert_eq!(table.next_active(GrantRef(0), u32::MAX), Search::Absent);
            assert_eq!(memory.total(), 0);
        }
    }
}

proptest! {
    #[test]
    fn every_history_follows_the_model_and_ends_with_nothing_held(
        ops in proptest::collection::vec(op(), 1..120)
    ) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
        }
        world.end();
    }

    #[test]
    fn no_content_of_an_entry_does_harm(bytes in any::<[u8; 8]>(), by in any::<u16>(), write in any::<bool>()) {
        let mut table = table(1, 1, 1);
        let mut memory = Memory::new();
        assert!(shared(&table, 0).write(0, &bytes));
        let access = if write { Access::Write } else { Access::Read };
        if table.acquire(GrantRef(0), DomId(by), access, &mut memory).is_ok() {
            table.release(GrantRef(0), access, &mut memory);
        }
        assert!(table.is_idle() && memory.total() == 0);
    }
}

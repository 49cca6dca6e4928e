//! Operations on and by a domain that is made already, when something runs out at each step in turn: whatever fails, nothing is
//! lost once the domain is gone, and the operation does all of it when there is enough again.
//!
//! One test, as it looks at the memory of the whole machine.

use std::sync::Arc;

use armv7::addr::Gfn;
use armv7::frame::{SharedPage, page};
use armv7::heap;
use armv7::host::heap::{fail_after, fail_no_more};
use krypton::call::{Args, Caller, Reply};
use krypton::domain::{Domain, registry};
use krypton::error::Errno;
use krypton::hypercall;
use krypton::id::DomId;

#[path = "support/toolstack.rs"]
mod toolstack;

use toolstack::{
    DOMCTL, Done, EVENT_CHANNEL_OP, Hog, MEMORY_OP, OPERATION, POINTED, RAM, Toolstack,
};

const GRANT_TABLE_OP: u32 = 20;
const VCPU_OP: u32 = 24;
const SCHED_OP: u32 = 29;
const SYSCTL: u32 = 35;
const VERSION: u32 = 0x15;
const DOMID_SELF: u32 = 0x7FF0;
/// Where nobody has a page, and no table of the map is.
const FAR: u64 = 0x8_0000;
/// Where dom0 has the first frame of the domain's grant table, and a reference in it.
const GRANTS: u64 = 0x100;
const REFERENCE: u32 = 8;

/// The domain that is made already, and dom0.
struct Scene<'a> {
    dom0: &'a Toolstack,
    guest: Arc<Domain>,
}

impl<'a> Scene<'a> {
    /// Makes the domain, with a page of RAM at 0 for its pointers.
    fn set(dom0: &'a Toolstack) -> Self {
        let id = dom0.create().unwrap();
        dom0.furnish(id).unwrap();
        dom0.populate(id, 0, &[0]).unwrap();
        let guest = registry::get(DomId(id)).unwrap();
        let scene = Self { dom0, guest };
        // It lends dom0 its first page.
        let table = page_at(&dom0.domain, GRANTS);
        let entry = [1u32, RAM as u32];
        for (n, word) in entry.into_iter().enumerate() {
            let place = table.u32_at(8 * REFERENCE as usize + 4 * n).unwrap();
            place.store(word, std::sync::atomic::Ordering::Relaxed);
        }
        scene
    }

    fn id(&self) -> u16 {
        self.guest.id.0
    }

    /// Ends the domain.
    fn strike(self) {
        let (dom0, id) = (self.dom0, self.id());
        drop(self.guest);
        dom0.destroy(id);
    }

    /// Makes a hypercall of the domain's, whose pointer leads to these words.
    fn call(&self, number: u32, operation: u32, words: &[u32], count: u32) -> Done {
        let page = page_at(&self.guest, 0);
        write(page, OPERATION as usize, words);
        let caller = Caller {
            domain: &self.guest,
            vcpu: &self.guest.vcpus()[0],
        };
        let mut args = match number {
            VCPU_OP => Args([operation, 0, OPERATION, 0, 0]),
            _ => Args([operation, OPERATION, count, 0, 0]),
        };
        loop {
            match hypercall::call(&caller, number, &args)? {
                Reply::Value(value) => return Ok(value),
                Reply::Unmask => return Ok(0),
                Reply::Again(next) => args = next,
            }
        }
    }

    fn event(&self, operation: u32, words: &[u32]) -> Done {
        self.call(EVENT_CHANNEL_OP, operation, words, 0)
    }

    /// Makes a hypercall of dom0's, likewise; returns the words afterwards.
    fn by_dom0<const N: usize>(
        &self,
        number: u32,
        operation: u32,
        words: [u32; N],
    ) -> Result<[u32; N], Errno> {
        self.dom0.place(OPERATION, &words);
        let args = match number {
            DOMCTL | SYSCTL => [OPERATION, 0, 0, 0, 0],
            _ => [operation, OPERATION, 1, 0, 0],
        };
        self.dom0.call(number, args)?;
        Ok(self.dom0.fetch(OPERATION))
    }

    fn domctl(&self, command: u32, body: &[u32]) -> Result<[u32; 14], Errno> {
        let mut words = [0; 14];
        words[..4].copy_from_slice(&[command, VERSION, self.id().into(), 0]);
        words[4..4 + body.len()].copy_from_slice(body);
        self.by_dom0(DOMCTL, 0, words)
    }

    fn sysctl(&self, command: u32, body: &[u32]) -> Result<[u32; 14], Errno> {
        let mut words = [0; 14];
        words[..2].copy_from_slice(&[command, VERSION]);
        words[2..2 + body.len()].copy_from_slice(body);
        self.by_dom0(SYSCTL, 0, words)
    }
}

fn page_at(domain: &Domain, gfn: u64) -> &'static SharedPage {
    let entry = domain.p2m.lock().lookup(Gfn::new(gfn).unwrap());
    page(entry.unwrap().mfn).unwrap()
}

fn write(page: &SharedPage, at: usize, words: &[u32]) {
    for (n, word) in words.iter().enumerate() {
        let place = page.u32_at(at + 4 * n).unwrap();
        place.store(*word, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Returns an error for a grant status.
fn okay(status: u32) -> Done {
    match status as u16 as i16 {
        0 => Ok(0),
        _ => Err(Errno::NoMem),
    }
}

type Operation = fn(&Scene<'_>) -> Done;

/// Operations. Each does all of it again when it is repeated, whatever an earlier try has done of it.
const OPERATIONS: &[(&str, Operation)] = &[
    ("ports", |scene| {
        let port = |_| scene.event(6, &[DOMID_SELF, 0]);
        (0..300).try_for_each(|n| port(n).map(drop))?;
        scene.event(10, &[DOMID_SELF])
    }),
    ("ports for interrupts", |scene| {
        scene.event(1, &[0, 0, 0])?;
        scene.event(7, &[1, 0])?;
        scene.event(10, &[DOMID_SELF])
    }),
    ("events in queues", |scene| {
        scene.event(10, &[DOMID_SELF])?;
        scene.event(11, &[RAM as u32 + 1, 0, 0, 0, 0, 0])?;
        scene.event(11, &[RAM as u32 + 2, 0, 0, 1, 0, 0])?;
        scene.event(12, &[RAM as u32 + 3, 0])?;
        scene.event(6, &[DOMID_SELF, 0])?;
        scene.event(10, &[DOMID_SELF])
    }),
    ("pages that come and go", |scene| {
        for gfn in [FAR, FAR << 2, FAR << 4] {
            write(page_at(&scene.guest, 0), POINTED as usize, &[gfn as u32, 0]);
            let extent = [POINTED, 0, 1, 0, 0, 0, DOMID_SELF, 0];
            // The page of an earlier try is given back.
            scene.call(MEMORY_OP, 1, &extent, 0)?;
            if scene.call(MEMORY_OP, 6, &extent, 0)? == 0 {
                return Err(Errno::NoMem);
            }
        }
        Ok(0)
    }),
    ("a block that is broken", |scene| {
        let gfns = [RAM as u32 + 5, 0];
        write(page_at(&scene.guest, 0), POINTED as usize, &gfns);
        let extent = [POINTED, 0, 1, 0, 0, 0, DOMID_SELF, 0];
        scene.call(MEMORY_OP, 1, &extent, 0)?;
        match scene.call(MEMORY_OP, 6, &extent, 0)? {
            0 => Err(Errno::NoMem),
            _ => Ok(0),
        }
    }),
    ("shared pages that are mapped", |scene| {
        for (space, index) in [(0, 0), (1, 0), (1, 3)] {
            let gfn = (FAR << 3) as u32 + index;
            let place = [DOMID_SELF, 0, gfn, 0];
            // From where an earlier try has put it.
            let _ = scene.call(MEMORY_OP, 15, &place, 0);
            let words = [DOMID_SELF, space, index, 0, gfn, 0];
            scene.call(MEMORY_OP, 7, &words, 0)?;
            scene.call(MEMORY_OP, 15, &place, 0)?;
        }
        Ok(0)
    }),
    ("a grant table that grows", |scene| {
        let words = [DOMID_SELF, 4, 0, 0, POINTED, 0];
        scene.call(GRANT_TABLE_OP, 2, &words, 1)?;
        let answer = page_at(&scene.guest, 0).u32_at(OPERATION as usize + 8);
        okay(answer.unwrap().load(std::sync::atomic::Ordering::Relaxed))
    }),
    ("grants that are mapped", |scene| {
        const COUNT: usize = 200;
        let mut mapped = [(0, 0); COUNT];
        let mut made = 0;
        let mut done = Ok(0);
        for (n, mapping) in mapped.iter_mut().enumerate() {
            let host = (FAR + 0x200 * n as u64) << 12;
            let id = u32::from(scene.id());
            let words = [host as u32, (host >> 32) as u32, 2, REFERENCE, id, 0, 0, 0];
            let answer = scene.by_dom0(GRANT_TABLE_OP, 0, words)?;
            done = okay(answer[4] >> 16);
            if done.is_err() {
                break;
            }
            *mapping = (host, answer[5]);
            made += 1;
        }
        for (host, handle) in &mapped[..made] {
            let words = [*host as u32, (host >> 32) as u32, 0, 0, *handle, 0];
            let answer = scene.by_dom0(GRANT_TABLE_OP, 1, words)?;
            assert_eq!(answer[5] as u16, 0, "a mapping that cannot be undone");
        }
        done
    }),
    ("a copy out of a grant", |scene| {
        let id = u32::from(scene.id());
        let words = [
            REFERENCE,
            0,
            id,
            0,
            0,
            0,
            DOMID_SELF | 0xC00 << 16,
            0,
            1 << 16 | 64,
            0,
        ];
        let answer = scene.by_dom0(GRANT_TABLE_OP, 5, words)?;
        okay(answer[9])
    }),
    ("pages of the domain in dom0", |scene| {
        let gfn = FAR + 5;
        scene.dom0.place(POINTED, &[RAM, gfn]);
        let (own, foreign) = (DOMID_SELF | 4 << 16, 1 | u32::from(scene.id()) << 16);
        let words = [own, foreign, POINTED, 0, POINTED + 8, 0, POINTED + 16, 0];
        let batch = scene.by_dom0(MEMORY_OP, 23, words);
        let _ = scene.by_dom0(MEMORY_OP, 15, [DOMID_SELF, 0, gfn as u32, 0]);
        batch?;
        match scene.dom0.fetch::<u32>(POINTED + 16) {
            0 => Ok(0),
            _ => Err(Errno::NoMem),
        }
    }),
    ("areas that the hypervisor writes", |scene| {
        scene.call(VCPU_OP, 5, &[POINTED, 0], 0)?;
        match scene.call(VCPU_OP, 10, &[RAM as u32 + 4, 0, 0, 0], 0) {
            // An earlier try has registered it, which is for good.
            Err(Errno::Inval) => Ok(0),
            other => other,
        }
    }),
    ("a watchdog", |scene| {
        let id = scene.call(SCHED_OP, 6, &[0, 1000], 0)?;
        scene.call(SCHED_OP, 6, &[id, 0], 0)
    }),
    ("a log of writes", |scene| {
        let _ = scene.domctl(10, &[0]);
        scene.domctl(10, &[2])?;
        let pages = RAM as u32 + 0x1100;
        scene.domctl(10, &[11, 0, 0, 0, 0, 0, pages, 0])?;
        scene.domctl(10, &[0]).map(|_| 0)
    }),
    ("a context", |scene| {
        scene.domctl(33, &[3000, 0, 1024, 0]).map(|_| 0)
    }),
    ("a vCPU's registers", |scene| {
        scene.domctl(13, &[0, 0, POINTED, 0]).map(|_| 0)
    }),
    ("more for its tables", |scene| {
        scene.domctl(86, &[200 << 12, 0])?;
        scene.domctl(86, &[64 << 12, 0]).map(|_| 0)
    }),
    ("a pool of CPUs", |scene| {
        let pool = scene.sysctl(18, &[1, 1, 9])?[3];
        scene.sysctl(18, &[2, pool]).map(|_| 0)
    }),
    ("weights and places", |scene| {
        scene.domctl(16, &[6, 0, 512])?;
        scene.dom0.place(POINTED, &[1u32, 0]);
        let hard = 1;
        scene
            .domctl(9, &[0, hard, POINTED, 0, 8, 0, POINTED, 0, 8, 0])
            .map(|_| 0)
    }),
    ("lists of domains", |scene| {
        scene.sysctl(6, &[0, 4, POINTED, 0, 0]).map(|_| 0)
    }),
];

/// Does an operation while something runs out, and all that must hold then. Returns whether it was done, which `enough` says too.
fn try_out(
    dom0: &Toolstack,
    (name, operation): &(&str, Operation),
    run_out: impl FnOnce(&dyn Fn() -> Done) -> (Done, bool),
) -> bool {
    let scene = Scene::set(dom0);
    let (done, enough) = run_out(&|| operation(&scene));
    if let Err(error) = done {
        assert!(!enough, "{name}: {error:?} though nothing runs out");
        assert_eq!(operation(&scene), Ok(0), "{name} after {error:?}");
    }
    scene.strike();
    enough
}

/// Most allocations and frames that an operation may need.
const MOST: u64 = 400;

#[test]
fn an_operation_that_cannot_be_done_loses_nothing() {
    let dom0 = Toolstack::new();
    // Lists that grow once, for good, have grown behind the first of each.
    let once = |operation| try_out(&dom0, operation, |run| (run(), true));
    assert!(OPERATIONS.iter().all(once));
    let (before, in_use) = (dom0.state(), heap::usage().0);
    let mut allocations = 0;
    let mut taken = 0;
    for operation in OPERATIONS {
        let name = operation.0;
        for for_good in [false, true] {
            let count = (0..MOST).find(|count| {
                let enough = try_out(&dom0, operation, |run| {
                    fail_after(*count, for_good);
                    let done = run();
                    (done, fail_no_more())
                });
                assert_eq!(dom0.state(), before, "{name}: allocation {count} fails");
                assert_eq!(heap::usage().0, in_use, "{name}: allocation {count} fails");
                enough
            });
            allocations += count.expect("no operation needs so many allocations");
        }
        let frames = (0..MOST).find(|left| {
            let enough = try_out(&dom0, operation, |run| {
                let hog = Hog::leave(*left as u32);
                let done = run();
                drop(hog);
                (done, done.is_ok())
            });
            assert_eq!(dom0.state(), before, "{name}: {left} frames are left");
            enough
        });
        taken += frames.expect("no operation needs so many frames");
    }
    assert!(
        allocations > 20 && taken > 300,
        "{allocations} allocations, {taken} frames"
    );
}

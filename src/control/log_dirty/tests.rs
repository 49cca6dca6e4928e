use std::sync::Arc;

use armv7::addr::Gfn;
use armv7::frame::page;
use zerocopy::IntoBytes;

use crate::abi::domctl::{self as abi, Domctl};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::control::domctl;
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::{Domain, Rights, registry};
use crate::error::Errno;
use crate::vcpu::Vcpu;

/// The control domain, whose page 0 has the argument and the bitmap, and another domain.
struct World {
    control: Arc<Domain>,
    vcpu: Arc<Vcpu>,
    other: Arc<Domain>,
}

const BITMAP: u64 = 0x800;
/// An address that no guest has.
const NOWHERE: u64 = 1 << 32;

impl World {
    fn new() -> Self {
        let (control, vcpu) = guest(Rights::DOM0, NO_TLB, &[0]);
        let (other, own) = guest(Rights::GUEST, NO_TLB, &[2, 9, 70, 9000]);
        other.set_vcpus(vec![own]);
        Self {
            control,
            vcpu,
            other,
        }
    }

    /// Makes a call to its end. Returns pages, faults and frames that became written.
    fn ask(&self, op: u32, mode: u32, bitmap: u64, pages: u64) -> Result<[u64; 3], Errno> {
        let head = [
            abi::OP_SHADOW_OP,
            abi::INTERFACE_VERSION,
            self.other.id.0.into(),
            0,
        ];
        let (low, high) = (bitmap as u32, (bitmap >> 32) as u32);
        let body = [op, mode, 0, 0, low, high, pages as u32, 0, 0, 0];
        let entry = self.control.p2m.lock().lookup(Gfn::new(0).unwrap());
        let arguments = page(entry.unwrap().mfn).unwrap();
        assert!(arguments.write(0, head.as_bytes()));
        assert!(arguments.write(Domctl::BODY as usize, body.as_bytes()));
        let caller = Caller {
            domain: &self.control,
            vcpu: &self.vcpu,
        };
        let mut args = Args::default();
        loop {
            let outcome: Outcome = domctl::call(&caller, &args);
            match outcome? {
                Reply::Again(next) => args = next,
                _ => break,
            }
        }
        let word = |at: usize| {
            let mut bytes = [0; 4];
            assert!(arguments.read(Domctl::BODY as usize + at, &mut bytes));
            u64::from(u32::from_le_bytes(bytes))
        };
        Ok([word(24), word(32), word(36)])
    }

    /// Returns the frames that are told.
    fn told(&self, op: u32) -> Vec<u32> {
        assert_eq!(self.ask(op, 0, BITMAP, 9001).unwrap()[0], 9001);
        let entry = self.control.p2m.lock().lookup(Gfn::new(0).unwrap());
        let mut bits = [0; 1126];
        assert!(
            page(entry.unwrap().mfn)
                .unwrap()
                .read(BITMAP as usize, &mut bits)
        );
        (0..9001)
            .filter(|n| bits[*n as usize / 8] >> (n % 8) & 1 != 0)
            .collect()
    }

    fn write(&self, at: u64) {
        let page = self.other.pin(at).unwrap();
        drop(page);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for domain in [&self.control, &self.other] {
            registry::remove(domain.id);
        }
    }
}

#[test]
fn the_frames_that_were_written_are_told_and_told_again_if_that_failed() {
    let world = World::new();
    assert_eq!(
        world.ask(abi::SHADOW_OP_CLEAN, 0, BITMAP, 9),
        Err(Errno::Inval)
    );
    assert!(world.ask(abi::SHADOW_OP_ENABLE_LOGDIRTY, 0, 0, 0).is_ok());
    let again = world.ask(abi::SHADOW_OP_ENABLE, abi::SHADOW_ENABLE_LOG_DIRTY, 0, 0);
    assert_eq!(again, Err(Errno::Inval), "it is on");
    assert_eq!(world.told(abi::SHADOW_OP_CLEAN), []);
    world.write(9);
    world.write(9000);
    assert_eq!(world.told(abi::SHADOW_OP_PEEK), [9, 9000]);
    let nowhere = world.ask(abi::SHADOW_OP_CLEAN, 0, NOWHERE, 9001);
    assert_eq!(nowhere, Err(Errno::Fault));
    assert_eq!(world.told(abi::SHADOW_OP_CLEAN), [9, 9000]);
    assert_eq!(world.told(abi::SHADOW_OP_CLEAN), []);
    world.write(2);
    world.write(70);
    // A short bitmap takes what it holds, and a number of frames beyond the last is corrected.
    assert_eq!(
        world.ask(abi::SHADOW_OP_CLEAN, 1, BITMAP, 70),
        Ok([70, 0, 2])
    );
    assert_eq!(world.told(abi::SHADOW_OP_PEEK), [70]);
    assert_eq!(
        world.ask(abi::SHADOW_OP_PEEK, 0, BITMAP, 1 << 20).unwrap()[0],
        9001
    );
    // Without a bitmap it is only cleaned.
    assert!(world.ask(abi::SHADOW_OP_CLEAN, 0, 0, 0).is_ok());
    assert_eq!(world.told(abi::SHADOW_OP_PEEK), []);
    for _ in 0..2 {
        assert!(world.ask(abi::SHADOW_OP_OFF, 0, 0, 0).is_ok());
    }
    assert_eq!(
        world.ask(abi::SHADOW_OP_PEEK, 0, BITMAP, 9),
        Err(Errno::Inval)
    );
}

#[test]
fn other_operations_and_modes_are_refused() {
    let world = World::new();
    for (op, mode, error) in [
        (abi::SHADOW_OP_ENABLE, 0, Errno::Inval),
        (abi::SHADOW_OP_CLEAN, 2, Errno::Inval),
        (abi::SHADOW_OP_GET_ALLOCATION, 0, Errno::NoSys),
        (abi::SHADOW_OP_SET_ALLOCATION, 0, Errno::NoSys),
        (77, 0, Errno::Inval),
    ] {
        assert_eq!(world.ask(op, mode, 0, 0), Err(error), "{op}");
    }
}

//! The operations of the hypervisor that this program uses, with the structures of Xen 4.17's ABI (docs/abi-coverage.md).

use std::io;

use crate::sys::{Buffer, PAGE, Pages, Privcmd};

const MEMORY_OP: u64 = 12;
const EVENT_CHANNEL_OP: u64 = 32;
const HVM_OP: u64 = 34;
const DOMCTL: u64 = 36;
const DOMCTL_VERSION: u32 = 0x15;
/// The offset of the operation's own argument in a domctl.
const BODY: usize = 16;

/// Frames that are described and mapped at once: 4 MiB.
pub const BATCH: usize = 1024;
/// First frame of a domU's RAM (`GUEST_RAM0_BASE`).
pub const RAM_START: u64 = 0x4_0000;
/// SHUTDOWN_suspend.
pub const SUSPENDED: u32 = 2;
/// HVM_PARAM_STORE_PFN and HVM_PARAM_CONSOLE_PFN.
pub const PARAMS: [(u32, &str); 2] = [(1, "STORE_PFN"), (17, "CONSOLE_PFN")];

/// A domain as `getdomaininfo` tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// It has shut down, with this reason.
    pub shutdown: Option<u32>,
    /// It is being taken apart.
    pub dying: bool,
}

/// The counters of a log of writes.
#[derive(Clone, Debug)]
pub struct Log {
    /// Frames that were written since it was read last.
    pub frames: Vec<u64>,
    /// Faults by that.
    pub faults: u32,
    /// Pages that became written.
    pub written: u32,
}

/// The hypervisor.
pub struct Xen {
    privcmd: Privcmd,
    /// For the structure of a call.
    argument: Buffer,
    /// For what that points to.
    data: Buffer,
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Xen {
    /// Opens the way to it.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            privcmd: Privcmd::open()?,
            argument: Buffer::new(PAGE)?,
            data: Buffer::new(16 * PAGE)?,
        })
    }

    /// Calls `op` with the structure `argument` as argument `place` and, as argument 0, `command`.
    fn call(&mut self, op: u64, command: u64, place: usize, argument: &[u8]) -> io::Result<u32> {
        self.argument.bytes()[..argument.len()].copy_from_slice(argument);
        let arguments = [command, 0, 0, 0, 0];
        self.privcmd.call(op, arguments, place, &mut self.argument)
    }

    /// Makes a domctl and returns its body as it comes back.
    fn domctl(&mut self, command: u32, domain: u16, body: &[u8]) -> io::Result<[u8; 128]> {
        let mut op = [0; 144];
        put(&mut op, 0, command.to_le_bytes());
        put(&mut op, 4, DOMCTL_VERSION.to_le_bytes());
        put(&mut op, 8, domain.to_le_bytes());
        op[BODY..BODY + body.len()].copy_from_slice(body);
        self.call(DOMCTL, 0, 0, &op)?;
        let bytes = self.argument.bytes();
        if command == 5 && bytes[8..10] != domain.to_le_bytes() {
            return Err(io::Error::other("there is no such domain"));
        }
        Ok(bytes[BODY..144].try_into().expect("the body's size"))
    }

    /// Tells of a domain.
    pub fn info(&mut self, domain: u16) -> io::Result<Info> {
        let body = self.domctl(5, domain, &[])?;
        let flags = u32_at(&body, 4);
        Ok(Info {
            shutdown: (flags & 4 != 0).then_some(flags >> 16 & 0xFF),
            dying: flags & 1 != 0,
        })
    }

    /// Lets a domain that has suspended go on where it called, with 1 as the answer: nothing has changed.
    pub fn resume_in_place(&mut self, domain: u16) -> io::Result<()> {
        /// Bytes of `vcpu_guest_context`, and where r0 is in it.
        const CONTEXT: usize = 352;
        const R0: usize = 8;
        let mut body = [0; 16];
        put(&mut body, 8, self.data.address().to_le_bytes());
        self.data.bytes()[..CONTEXT].fill(0);
        self.domctl(13, domain, &body)?;
        put(self.data.bytes(), R0, 1u64.to_le_bytes());
        self.domctl(12, domain, &body)?;
        self.domctl(27, domain, &[])?;
        Ok(())
    }

    /// Has a suspend of a domain told on its port `port` rather than to everybody; 0 takes that back.
    pub fn subscribe(&mut self, domain: u16, port: u32) -> io::Result<()> {
        self.domctl(29, domain, &port.to_le_bytes()).map(drop)
    }

    /// Makes a port of a domain for this one to bind.
    pub fn new_port(&mut self, domain: u16) -> io::Result<u32> {
        let mut op = [0; 8];
        put(&mut op, 0, domain.to_le_bytes());
        self.call(EVENT_CHANNEL_OP, 6, 1, &op)?;
        Ok(u32_at(self.argument.bytes(), 4))
    }

    /// Returns the last frame that a domain has.
    pub fn last_frame(&mut self, domain: u16) -> io::Result<u64> {
        let mut op = [0; 8];
        put(&mut op, 0, domain.to_le_bytes());
        self.call(MEMORY_OP, 14, 1, &op).map(u64::from)
    }

    /// Returns for each of up to [`BATCH`] frames whether it holds a page of the domain's own.
    pub fn have_pages(&mut self, domain: u16, frames: &[u64]) -> io::Result<Vec<bool>> {
        let bytes = self.data.bytes();
        for (n, frame) in frames.iter().enumerate() {
            put(bytes, 8 * n, frame.to_le_bytes());
        }
        let mut body = [0; 16];
        put(&mut body, 0, (frames.len() as u64).to_le_bytes());
        put(&mut body, 8, self.data.address().to_le_bytes());
        self.domctl(61, domain, &body)?;
        let bytes = self.data.bytes();
        Ok((0..frames.len())
            .map(|n| u64_at(bytes, 8 * n) >> 28 & 0xF == 0)
            .collect())
    }

    /// Maps pages of a domain.
    pub fn map(&self, domain: u16, frames: &[u64], writable: bool) -> io::Result<Pages> {
        self.privcmd.map(domain, frames, writable)
    }

    /// Begins to log which pages of a domain are written.
    pub fn begin_log(&mut self, domain: u16) -> io::Result<()> {
        self.domctl(10, domain, &2u32.to_le_bytes()).map(drop)
    }

    /// Ends that; without effect if nothing is logged.
    pub fn end_log(&mut self, domain: u16) -> io::Result<()> {
        self.domctl(10, domain, &0u32.to_le_bytes()).map(drop)
    }

    /// Reads which of the first `count` frames of a domain were written, and begins the log anew.
    pub fn read_log(&mut self, domain: u16, count: u64) -> io::Result<Log> {
        let bytes = count.div_ceil(64) as usize * 8;
        let mut bitmap = Buffer::new(bytes)?;
        let mut body = [0; 40];
        put(&mut body, 0, 11u32.to_le_bytes());
        put(&mut body, 16, bitmap.address().to_le_bytes());
        put(&mut body, 24, count.to_le_bytes());
        let body = self.domctl(10, domain, &body)?;
        let told = u64_at(&body, 24).min(count);
        let mut frames = Vec::new();
        for (n, word) in bitmap.bytes()[..bytes].chunks_exact(8).enumerate() {
            let (first, word) = (64 * n as u64, u64_at(word, 0));
            let set = (0..64).filter(|bit| word >> bit & 1 != 0);
            frames.extend(set.map(|bit| first + bit).filter(|frame| *frame < told));
        }
        Ok(Log {
            frames,
            faults: u32_at(&body, 32),
            written: u32_at(&body, 36),
        })
    }

    /// Gives a domain pages at frames (`operation` 6) or takes them away (1); all or an error.
    fn reservation(&mut self, operation: u64, domain: u16, frames: &[u64]) -> io::Result<()> {
        for part in frames.chunks(BATCH) {
            let bytes = self.data.bytes();
            for (n, frame) in part.iter().enumerate() {
                put(bytes, 8 * n, frame.to_le_bytes());
            }
            let mut op = [0; 32];
            put(&mut op, 0, self.data.address().to_le_bytes());
            put(&mut op, 8, (part.len() as u64).to_le_bytes());
            put(&mut op, 24, domain.to_le_bytes());
            let done = self.call(MEMORY_OP, operation, 1, &op)?;
            if done as usize != part.len() {
                let frame = part[done as usize];
                return Err(io::Error::other(format!("refused at frame {frame:#x}")));
            }
        }
        Ok(())
    }

    /// Gives a domain pages.
    pub fn populate(&mut self, domain: u16, frames: &[u64]) -> io::Result<()> {
        self.reservation(6, domain, frames)
    }

    /// Takes pages from a domain.
    pub fn take_away(&mut self, domain: u16, frames: &[u64]) -> io::Result<()> {
        self.reservation(1, domain, frames)
    }

    /// Puts a domain's shared_info at a frame of its.
    pub fn map_shared_info(&mut self, domain: u16, frame: u64) -> io::Result<()> {
        let mut op = [0; 24];
        put(&mut op, 0, domain.to_le_bytes());
        put(&mut op, 16, frame.to_le_bytes());
        self.call(MEMORY_OP, 7, 1, &op).map(drop)
    }

    /// Reads an HVM parameter.
    pub fn param(&mut self, domain: u16, index: u32) -> io::Result<u64> {
        let mut op = [0; 16];
        put(&mut op, 0, domain.to_le_bytes());
        put(&mut op, 4, index.to_le_bytes());
        self.call(HVM_OP, 1, 1, &op)?;
        Ok(u64_at(self.argument.bytes(), 8))
    }

    /// Reads what a domain is beside its memory.
    pub fn context(&mut self, domain: u16) -> io::Result<Vec<u8>> {
        let body = self.domctl(33, domain, &[0; 16])?;
        let size = u32_at(&body, 0);
        let mut buffer = Buffer::new(size as usize)?;
        let mut body = [0; 16];
        put(&mut body, 0, size.to_le_bytes());
        put(&mut body, 8, buffer.address().to_le_bytes());
        let body = self.domctl(33, domain, &body)?;
        let size = (u32_at(&body, 0) as usize).min(size as usize);
        Ok(buffer.bytes()[..size].to_vec())
    }

    /// Sets it, of a domain that has never run.
    pub fn set_context(&mut self, domain: u16, context: &[u8]) -> io::Result<()> {
        let mut buffer = Buffer::new(context.len())?;
        buffer.bytes()[..context.len()].copy_from_slice(context);
        let mut body = [0; 16];
        put(&mut body, 0, (context.len() as u32).to_le_bytes());
        put(&mut body, 8, buffer.address().to_le_bytes());
        self.domctl(34, domain, &body).map(drop)
    }

    /// Makes what was written to a domain's memory visible to it with its caches off.
    pub fn flush(&mut self, domain: u16, first: u64, count: u64) -> io::Result<()> {
        let mut body = [0; 16];
        put(&mut body, 0, first.to_le_bytes());
        put(&mut body, 8, count.to_le_bytes());
        self.domctl(71, domain, &body).map(drop)
    }
}

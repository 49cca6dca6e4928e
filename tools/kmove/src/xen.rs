//! The hypervisor by its hypercalls, with the structures of Xen 4.17's ABI (docs/abi-coverage.md).

use std::io;

use crate::machine::{BATCH, Hypervisor, INTERDOMAIN, Info, Log, PAGE, Port, UNBOUND};
use crate::sys::{Buffer, Privcmd};

const MEMORY_OP: u64 = 12;
const GRANT_TABLE_OP: u64 = 20;
const EVENT_CHANNEL_OP: u64 = 32;
const HVM_OP: u64 = 34;
const DOMCTL: u64 = 36;
const DOMCTL_VERSION: u32 = 0x15;
/// The offset of the operation's own argument in a domctl.
const BODY: usize = 16;

/// EVTCHNSTAT_virq.
const VIRQ: u32 = 4;

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

    /// Calls an operation of grant tables, whose structure has its result at `status`.
    fn grant_op(&mut self, operation: u64, op: &[u8], status: usize) -> io::Result<()> {
        self.argument.bytes()[..op.len()].copy_from_slice(op);
        let arguments = [operation, 0, 1, 0, 0];
        self.privcmd
            .call(GRANT_TABLE_OP, arguments, 1, &mut self.argument)?;
        match u32_at(self.argument.bytes(), status) as i16 {
            0 => Ok(()),
            fault => Err(io::Error::other(format!(
                "the hypervisor says {fault} of its grant table"
            ))),
        }
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
            if let Some(frame) = part.get(done as usize) {
                return Err(io::Error::other(format!("refused at frame {frame:#x}")));
            }
        }
        Ok(())
    }
}

impl Hypervisor for Xen {
    fn info(&mut self, domain: u16) -> io::Result<Info> {
        let body = self.domctl(5, domain, &[])?;
        let flags = u32_at(&body, 4);
        Ok(Info {
            shutdown: (flags & 4 != 0).then_some(flags >> 16 & 0xFF),
            dying: flags & 1 != 0,
        })
    }

    fn resume_in_place(&mut self, domain: u16) -> io::Result<()> {
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

    fn pause(&mut self, domain: u16) -> io::Result<()> {
        self.domctl(3, domain, &[]).map(drop)
    }

    fn unpause(&mut self, domain: u16) -> io::Result<()> {
        self.domctl(4, domain, &[]).map(drop)
    }

    fn subscribe(&mut self, domain: u16, port: u32) -> io::Result<()> {
        self.domctl(29, domain, &port.to_le_bytes()).map(drop)
    }

    fn new_port(&mut self, domain: u16) -> io::Result<u32> {
        let mut op = [0; 8];
        put(&mut op, 0, domain.to_le_bytes());
        self.call(EVENT_CHANNEL_OP, 6, 1, &op)?;
        Ok(u32_at(self.argument.bytes(), 4))
    }

    fn port(&mut self, domain: u16, port: u32) -> io::Result<Option<Port>> {
        const EINVAL: i32 = 22;
        let mut op = [0; 24];
        put(&mut op, 0, domain.to_le_bytes());
        put(&mut op, 4, port.to_le_bytes());
        match self.call(EVENT_CHANNEL_OP, 5, 1, &op) {
            Err(error) if error.raw_os_error() == Some(EINVAL) => return Ok(None),
            done => done?,
        };
        let bytes = self.argument.bytes();
        let status = u32_at(bytes, 8);
        let has_domain = [UNBOUND, INTERDOMAIN].contains(&status);
        Ok(Some(Port {
            status,
            vcpu: u32_at(bytes, 12),
            domain: if has_domain {
                u32_at(bytes, 16) as u16
            } else {
                0
            },
            detail: match status {
                INTERDOMAIN => u32_at(bytes, 20),
                VIRQ => u32_at(bytes, 16),
                _ => 0,
            },
        }))
    }

    fn grant_frames(&mut self, domain: u16) -> io::Result<Vec<Option<u64>>> {
        let mut op = [0; 16];
        put(&mut op, 0, domain.to_le_bytes());
        self.grant_op(6, &op, 12)?;
        let count = u32_at(self.argument.bytes(), 4);
        let mut list = Buffer::new(8 * count as usize)?;
        let mut op = [0; 24];
        put(&mut op, 0, domain.to_le_bytes());
        put(&mut op, 4, count.to_le_bytes());
        put(&mut op, 16, list.address().to_le_bytes());
        self.grant_op(2, &op, 8)?;
        let bytes = list.bytes();
        let frame = |n| Some(u64_at(bytes, 8 * n)).filter(|frame| *frame != u64::MAX);
        Ok((0..count as usize).map(frame).collect())
    }

    fn read_grants(&mut self, domain: u16, index: u32) -> io::Result<Box<[u8; PAGE]>> {
        let mut page = Box::new([0; PAGE]);
        self.privcmd.map_grants(domain, index)?.read(0, &mut page);
        Ok(page)
    }

    fn write_grants(
        &mut self,
        domain: u16,
        index: u32,
        from: usize,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.privcmd
            .map_grants(domain, index)?
            .write_from(from, bytes);
        Ok(())
    }

    fn place_grants(&mut self, domain: u16, index: u32, frame: u64) -> io::Result<()> {
        let mut op = [0; 24];
        put(&mut op, 0, domain.to_le_bytes());
        put(&mut op, 4, 1u32.to_le_bytes());
        put(&mut op, 8, u64::from(index).to_le_bytes());
        put(&mut op, 16, frame.to_le_bytes());
        self.call(MEMORY_OP, 7, 1, &op).map(drop)
    }

    fn last_frame(&mut self, domain: u16) -> io::Result<u64> {
        let mut op = [0; 8];
        put(&mut op, 0, domain.to_le_bytes());
        self.call(MEMORY_OP, 14, 1, &op).map(u64::from)
    }

    fn have_pages(&mut self, domain: u16, frames: &[u64]) -> io::Result<Vec<bool>> {
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

    fn read_pages(
        &mut self,
        domain: u16,
        frames: &[u64],
        each: &mut dyn FnMut(&[u8; PAGE]),
    ) -> io::Result<()> {
        let mapped = self.privcmd.map(domain, frames, false)?;
        let mut page = [0; PAGE];
        for n in 0..frames.len() {
            mapped.read(n, &mut page);
            each(&page);
        }
        Ok(())
    }

    fn write_pages(&mut self, domain: u16, pages: &[(u64, &[u8; PAGE])]) -> io::Result<()> {
        let frames: Vec<u64> = pages.iter().map(|(frame, _)| *frame).collect();
        let mut mapped = self.privcmd.map(domain, &frames, true)?;
        for (n, (_, page)) in pages.iter().enumerate() {
            mapped.write(n, page);
        }
        Ok(())
    }

    fn begin_log(&mut self, domain: u16) -> io::Result<()> {
        self.domctl(10, domain, &2u32.to_le_bytes()).map(drop)
    }

    fn end_log(&mut self, domain: u16) -> io::Result<()> {
        self.domctl(10, domain, &0u32.to_le_bytes()).map(drop)
    }

    fn read_log(&mut self, domain: u16, count: u64) -> io::Result<Log> {
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

    fn populate(&mut self, domain: u16, frames: &[u64]) -> io::Result<()> {
        self.reservation(6, domain, frames)
    }

    fn take_away(&mut self, domain: u16, frames: &[u64]) -> io::Result<()> {
        self.reservation(1, domain, frames)
    }

    fn map_shared_info(&mut self, domain: u16, frame: u64) -> io::Result<()> {
        let mut op = [0; 24];
        put(&mut op, 0, domain.to_le_bytes());
        put(&mut op, 16, frame.to_le_bytes());
        self.call(MEMORY_OP, 7, 1, &op).map(drop)
    }

    fn param(&mut self, domain: u16, index: u32) -> io::Result<u64> {
        let mut op = [0; 16];
        put(&mut op, 0, domain.to_le_bytes());
        put(&mut op, 4, index.to_le_bytes());
        self.call(HVM_OP, 1, 1, &op)?;
        Ok(u64_at(self.argument.bytes(), 8))
    }

    fn context(&mut self, domain: u16) -> io::Result<Vec<u8>> {
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

    fn set_context(&mut self, domain: u16, context: &[u8]) -> io::Result<()> {
        let mut buffer = Buffer::new(context.len())?;
        buffer.bytes()[..context.len()].copy_from_slice(context);
        let mut body = [0; 16];
        put(&mut body, 0, (context.len() as u32).to_le_bytes());
        put(&mut body, 8, buffer.address().to_le_bytes());
        self.domctl(34, domain, &body).map(drop)
    }

    fn flush(&mut self, domain: u16, first: u64, count: u64) -> io::Result<()> {
        let mut body = [0; 16];
        put(&mut body, 0, first.to_le_bytes());
        put(&mut body, 8, count.to_le_bytes());
        self.domctl(71, domain, &body).map(drop)
    }
}

//! console_io (18): dom0's console. Output goes to the UART and the ring unchanged.
//!
//! A caller that writes faster than the serial line sends is continued, as the ABI has no short count and output must
//! not be lost. Meanwhile it takes its interrupts, and other vCPUs run.

use crate::call::guest_ptr::{copy_in, copy_out};
use crate::call::{Args, Caller, Outcome, Reply, must_pause};
use crate::console;
use crate::error::Errno;

/// Writes bytes to the console.
const OP_WRITE: u32 = 0;
/// Reads input without waiting.
const OP_READ: u32 = 1;
/// Bytes copied in one go.
const CHUNK: usize = 128;
/// Bytes written before the caller can take an interrupt.
const WRITE_AT_ONCE: u32 = 1024;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    if !caller.domain.rights.console {
        return Err(Errno::Perm);
    }
    let [op, count, ..] = args.0;
    let buffer = args.ptr(2);
    let mut chunk = [0; CHUNK];
    match op {
        OP_WRITE => {
            let mut done = 0;
            while done < count {
                if done >= WRITE_AT_ONCE || done != 0 && must_pause() {
                    return Ok(rest(args, done));
                }
                let at = buffer.checked_add(done).ok_or(Errno::Fault)?;
                let len = (count - done).min(CHUNK as u32);
                let Some(part) = chunk.get_mut(..len as usize) else {
                    break;
                };
                copy_in(caller.domain, at, part)?;
                let taken = console::write_bytes(part) as u32;
                done += taken;
                if taken < len {
                    caller.vcpu.yield_now();
                    return Ok(rest(args, done));
                }
            }
            Ok(Reply::OK)
        }
        OP_READ => {
            if count > i32::MAX as u32 {
                return Err(Errno::TooBig);
            }
            let mut done = 0;
            while done < count {
                let len = ((count - done) as usize).min(CHUNK);
                let Some(part) = chunk.get_mut(..len) else {
                    break;
                };
                let got = console::read_input(part);
                if got == 0 {
                    break;
                }
                let at = buffer.checked_add(done).ok_or(Errno::Fault)?;
                copy_out(caller.domain, at, part.get(..got).unwrap_or(&[]))?;
                done += got as u32;
            }
            Ok(Reply::Value(done))
        }
        _ => Err(Errno::NoSys),
    }
}

/// Returns the continuation with the bytes after the first `done`.
fn rest(args: &Args, done: u32) -> Reply {
    let [_, count, buffer, ..] = args.0;
    args.again([
        (1, count.wrapping_sub(done)),
        (2, buffer.wrapping_add(done)),
    ])
}

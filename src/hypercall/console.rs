//! console_io (18): dom0's console. Output goes to the UART and the ring as it is.

use super::guest_ptr::{copy_in, copy_out};
use super::{Args, Caller, Outcome, Reply};
use crate::console;
use crate::error::Errno;

/// Writes bytes.
const OP_WRITE: u32 = 0;
/// Reads typed bytes, without waiting.
const OP_READ: u32 = 1;
/// Bytes copied at a time.
const CHUNK: usize = 128;
/// Bytes written before the caller gets a chance to take an interrupt.
const WRITE_AT_ONCE: usize = 1024;

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
            let now = (count as usize).min(WRITE_AT_ONCE);
            while done < now {
                let len = (now - done).min(CHUNK);
                let at = buffer.checked_add(done as u32).ok_or(Errno::Fault)?;
                let Some(part) = chunk.get_mut(..len) else {
                    break;
                };
                copy_in(caller.domain, at, part)?;
                console::write_bytes(part);
                done += len;
            }
            if done < count as usize {
                let mut next = *args;
                next.0[1] = count - done as u32;
                next.0[2] = buffer.0.wrapping_add(done as u32);
                return Ok(Reply::Again(next));
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

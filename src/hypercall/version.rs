//! xen_version (17): version and features. Every result fills its buffer, zero-padded (XSA-122).

use armv7::addr::GuestVa;

use crate::abi::version as abi;
use crate::call::guest_ptr::{copy_out, read, write};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::error::Errno;
use crate::identity;

/// Start of the hypervisor's address space, as Xen reports it on arm32.
const VIRT_START: u64 = 0x20_0000;
const PAGE_SIZE: u32 = 4096;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let arg = args.ptr(1);
    match args.0[0] {
        abi::OP_VERSION => return Ok(Reply::Value(abi::VERSION)),
        abi::OP_EXTRAVERSION => {
            text::<{ abi::EXTRAVERSION_LEN }>(caller, arg, identity::EXTRA_VERSION)?
        }
        abi::OP_COMPILE_INFO => {
            let info = abi::CompileInfo {
                compiler: padded(identity::COMPILER),
                compile_by: padded(identity::COMPILED_BY),
                compile_domain: padded(identity::COMPILED_ON),
                compile_date: padded(identity::COMPILED_AT),
            };
            write(caller.domain, arg, &info)?;
        }
        abi::OP_CAPABILITIES => {
            text::<{ abi::CAPABILITIES_LEN }>(caller, arg, identity::CAPABILITIES)?
        }
        abi::OP_CHANGESET => text::<{ abi::CHANGESET_LEN }>(caller, arg, identity::CHANGESET)?,
        abi::OP_PLATFORM_PARAMETERS => {
            write(
                caller.domain,
                arg,
                &abi::PlatformParameters {
                    virt_start: VIRT_START,
                },
            )?;
        }
        abi::OP_GET_FEATURES => {
            let mut op: abi::FeatureInfo = read(caller.domain, arg)?;
            if op.submap_idx != 0 {
                return Err(Errno::Inval);
            }
            op.submap = if caller.domain.rights.hardware {
                abi::FEATURES_DOM0
            } else {
                abi::FEATURES_DOMU
            };
            write(caller.domain, arg, &op)?;
        }
        abi::OP_PAGESIZE => {
            if arg != GuestVa(0) {
                return Err(Errno::Inval);
            }
            return Ok(Reply::Value(PAGE_SIZE));
        }
        abi::OP_GUEST_HANDLE => {
            let handle = caller.domain.state.lock().handle;
            copy_out(caller.domain, arg, &handle)?;
        }
        abi::OP_COMMANDLINE => {
            let line = if caller.domain.is_control() {
                identity::command_line()
            } else {
                "<denied>"
            };
            text::<{ abi::COMMANDLINE_LEN }>(caller, arg, line)?;
        }
        abi::OP_BUILD_ID => return build_id(caller, arg),
        _ => return Err(Errno::NoSys),
    }
    Ok(Reply::Value(0))
}

fn build_id(caller: &Caller<'_>, arg: GuestVa) -> Outcome {
    if !caller.domain.is_control() {
        return Err(Errno::Perm);
    }
    let id = identity::build_id();
    let room = match arg {
        GuestVa(0) => None,
        _ => Some(read::<abi::BuildId>(caller.domain, arg)?.len as usize),
    };
    if room == Some(0) {
        return Err(Errno::Inval);
    }
    if id.is_empty() {
        return Err(Errno::NoData);
    }
    if let Some(room) = room {
        if room < id.len() {
            return Err(Errno::NoBufs);
        }
        let body = arg
            .checked_add(size_of::<abi::BuildId>() as u32)
            .ok_or(Errno::Fault)?;
        copy_out(caller.domain, body, id)?;
    }
    Ok(Reply::Value(id.len() as u32))
}

/// Returns `text` in an array of `N` bytes, with at least one NUL.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let room = N.saturating_sub(1);
    for (cell, byte) in bytes.iter_mut().take(room).zip(text.bytes()) {
        *cell = byte;
    }
    bytes
}

fn text<const N: usize>(caller: &Caller<'_>, arg: GuestVa, text: &str) -> Result<(), Errno> {
    copy_out(caller.domain, arg, &padded::<N>(text))
}

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn texts_are_cut_before_their_last_byte_and_padded_with_zeroes() {
        assert_eq!(padded::<4>("abcdef"), *b"abc\0");
        assert_eq!(padded::<4>("a"), *b"a\0\0\0");
        assert_eq!(padded::<0>("a"), *b"");
    }
}

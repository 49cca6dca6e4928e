//! xen_version: every sub-operation into a poisoned buffer (abi.md 2.1).

use guests::harness::Verdict;
use guests::hypercall::{self, address_of, call, call_with};
use guests::memory;
use guests::status::{EINVAL, ENOSYS, EPERM};
use guests::{ensure, ensure_eq};

use crate::POISON;

pub const XENVER_GET_FEATURES: u32 = 6;

/// Calls xen_version into a poisoned buffer; returns the result and how many bytes were written before the poison.
fn version_into<const SIZE: usize>(command: u32, buffer: &mut [u8; SIZE]) -> (i32, usize) {
    buffer.fill(POISON);
    let result = call(hypercall::XEN_VERSION, [command, address_of(buffer), 0, 0, 0]);
    (result, buffer.iter().rposition(|&byte| byte != POISON).map_or(0, |last| last + 1))
}

/// Returns whether the field is text, a terminator, and nothing but zeros after it.
fn is_padded_text(field: &[u8]) -> bool {
    let length = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at(length);
    !padding.is_empty() && text.iter().all(|byte| (b' '..=b'~').contains(byte)) && padding.iter().all(|&byte| byte == 0)
}

pub fn version_needs_no_pointer() -> Verdict {
    ensure_eq!(call(hypercall::XEN_VERSION, [0, 0, 0, 0, 0]), 4 << 16 | 17);
    ensure_eq!(call(hypercall::XEN_VERSION, [0, memory::UNMAPPED, 0, 0, 0]), 4 << 16 | 17);
    Ok(())
}

pub fn extraversion_fills_exactly_sixteen_bytes() -> Verdict {
    let mut buffer = [0; 32];
    let (result, written) = version_into(1, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 16);
    ensure!(buffer[0] == b'.' && is_padded_text(&buffer[..16]));
    Ok(())
}

pub fn compile_info_fills_exactly_144_bytes() -> Verdict {
    let mut buffer = [0; 160];
    let (result, written) = version_into(2, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 144);
    // compiler, compile_by, compile_domain, compile_date.
    for (start, end) in [(0, 64), (64, 80), (80, 112), (112, 144)] {
        ensure!(is_padded_text(&buffer[start..end]), start);
    }
    Ok(())
}

pub fn capabilities_name_the_armv7_guest_type() -> Verdict {
    let mut buffer = [0; 1040];
    let (result, written) = version_into(3, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 1024);
    ensure!(buffer.starts_with(b"xen-3.0-armv7l \0") && is_padded_text(&buffer[..1024]));
    Ok(())
}

pub fn changeset_fills_exactly_64_bytes() -> Verdict {
    let mut buffer = [0; 80];
    let (result, written) = version_into(4, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 64);
    ensure!(is_padded_text(&buffer[..64]));
    Ok(())
}

pub fn platform_parameters_are_one_64_bit_word() -> Verdict {
    let mut buffer = [0; 16];
    let (result, written) = version_into(5, &mut buffer);
    ensure_eq!(result, 0);
    ensure_eq!(written, 8);
    ensure_eq!(
        u64::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3], buffer[4], buffer[5], buffer[6], buffer[7]]),
        0x20_0000
    );
    Ok(())
}

/// The feature map of submap 0.
pub fn features() -> u32 {
    let mut info = [0_u32, 0];
    call_with(hypercall::XEN_VERSION, XENVER_GET_FEATURES, &mut info);
    info[1]
}

const FEATURE_DOM0: u32 = 1 << 11;
const FEATURES_DOM0: u32 = 0x2_6805;
const FEATURES_DOMU: u32 = 0x1_6005;

pub fn is_dom0() -> bool {
    features() & FEATURE_DOM0 != 0
}

pub fn features_of_submap_0_are_those_of_the_domain() -> Verdict {
    ensure_eq!(features(), if is_dom0() { FEATURES_DOM0 } else { FEATURES_DOMU });
    Ok(())
}

pub fn features_of_another_submap_are_refused() -> Verdict {
    for submap in [1, 2, u32::MAX] {
        let mut info = [submap, 0xdead_beef];
        ensure_eq!(call_with(hypercall::XEN_VERSION, XENVER_GET_FEATURES, &mut info), EINVAL, submap);
    }
    Ok(())
}

pub fn pagesize_wants_a_null_pointer() -> Verdict {
    ensure_eq!(call(hypercall::XEN_VERSION, [7, 0, 0, 0, 0]), 4096);
    ensure_eq!(call(hypercall::XEN_VERSION, [7, 4, 0, 0, 0]), EINVAL);
    Ok(())
}

pub fn guest_handle_fills_exactly_sixteen_bytes() -> Verdict {
    // A handle byte may equal the poison: check the bytes behind it.
    let mut buffer = [POISON; 24];
    ensure_eq!(call_with(hypercall::XEN_VERSION, 8, &mut buffer), 0);
    ensure!(buffer[16..].iter().all(|&byte| byte == POISON));
    ensure!(buffer[..16].iter().any(|&byte| byte != POISON));
    Ok(())
}

pub fn commandline_is_a_terminated_string() -> Verdict {
    let mut buffer = [0; 1040];
    let (result, written) = version_into(9, &mut buffer);
    ensure_eq!(result, 0);
    ensure!(written <= 1024, written);
    ensure!(buffer[..1024].contains(&0));
    Ok(())
}

pub fn build_id_tells_its_size_and_then_itself() -> Verdict {
    let size = call(hypercall::XEN_VERSION, [10, 0, 0, 0, 0]);
    if !is_dom0() {
        ensure_eq!(size, EPERM);
        return Ok(());
    }
    // A SHA-1, as ld's --build-id makes it.
    ensure_eq!(size, 20);
    let mut buffer = [POISON; 32];
    buffer[..4].copy_from_slice(&20_u32.to_le_bytes());
    ensure_eq!(call_with(hypercall::XEN_VERSION, 10, &mut buffer), 20);
    ensure!(buffer[4..24].iter().any(|&byte| byte != POISON));
    ensure!(buffer[24..].iter().all(|&byte| byte == POISON));
    Ok(())
}

pub fn other_version_commands_return_enosys() -> Verdict {
    let mut buffer = [POISON; 1024];
    for command in (11..64).chain([u32::MAX]) {
        ensure_eq!(call_with(hypercall::XEN_VERSION, command, &mut buffer), ENOSYS, command);
    }
    ensure!(buffer.iter().all(|&byte| byte == POISON));
    Ok(())
}

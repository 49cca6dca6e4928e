//! Sets of CPUs and nodes as `xenctl_bitmap`: bits in guest memory, with a length that the guest gives.

use crate::abi::domctl::Bitmap;
use crate::call::Caller;
use crate::call::guest_ptr::{copy_in, copy_out};
use crate::error::Errno;

/// The bits of a map that are written. No CPU has a number beyond them.
const MAX_BYTES: usize = 512;

/// Returns the size of a map of `nr_bits`, in bytes.
const fn bytes(nr_bits: u32) -> usize {
    nr_bits.div_ceil(8) as usize
}

/// Returns the bits that a map of `nr_bits` has.
const fn clip(bits: u32, nr_bits: u32) -> u32 {
    match 1u32.checked_shl(nr_bits) {
        Some(end) => bits & (end - 1),
        None => bits,
    }
}

/// Writes a set. Members beyond the map's end are left out.
pub fn write(caller: &Caller<'_>, map: &Bitmap, bits: u32) -> Result<(), Errno> {
    let mut buffer = [0; MAX_BYTES];
    let len = bytes(map.nr_bits).min(MAX_BYTES);
    for (cell, byte) in buffer.iter_mut().zip(clip(bits, map.nr_bits).to_le_bytes()) {
        *cell = byte;
    }
    if len == 0 {
        return Ok(());
    }
    let to = map.bitmap.to_va().ok_or(Errno::Fault)?;
    copy_out(caller.domain, to, buffer.get(..len).unwrap_or(&[]))
}

/// Reads the first 32 bits of a set. Bits beyond the map's end are clear.
pub fn read(caller: &Caller<'_>, map: &Bitmap) -> Result<u32, Errno> {
    let mut buffer = [0; 4];
    let len = bytes(map.nr_bits).min(buffer.len());
    if let Some(buffer) = buffer.get_mut(..len).filter(|buffer| !buffer.is_empty()) {
        copy_in(
            caller.domain,
            map.bitmap.to_va().ok_or(Errno::Fault)?,
            buffer,
        )?;
    }
    Ok(clip(u32::from_le_bytes(buffer), map.nr_bits))
}

#[cfg(test)]
mod tests {
    use super::{bytes, clip};

    #[test]
    fn a_map_has_whole_bytes_and_says_no_more_than_its_bits() {
        assert_eq!([0, 1, 8, 9, u32::MAX].map(bytes), [0, 1, 1, 2, 1 << 29]);
        assert_eq!(clip(0xFF, 0), 0);
        assert_eq!(clip(0xFF, 3), 7);
        assert_eq!(clip(u32::MAX, 32), u32::MAX);
        assert_eq!(clip(u32::MAX, 200), u32::MAX);
    }
}

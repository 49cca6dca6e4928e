//! File formats: the ELF file that cargo makes, the flat binary and the uImage that boot loaders take.

use crate::Result;

/// A zImage has this word at this offset (Linux Documentation/arm/booting.rst).
const ZIMAGE_MAGIC: [u8; 4] = 0x016f_2818_u32.to_le_bytes();
const ZIMAGE_MAGIC_OFFSET: usize = 0x24;

const PT_LOAD: u32 = 1;

/// Lays an ELF file's loadable segments out as they stand in memory at their physical addresses.
pub fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
    let segments =
        load_segments(elf).ok_or("not a little-endian 32-bit ELF file, or a truncated one")?;
    let base = segments
        .iter()
        .map(|segment| segment.address)
        .min()
        .ok_or("the ELF file has nothing to load")?;
    let mut flat = Vec::new();
    for segment in segments {
        let start = (segment.address - base) as usize;
        let end = start + segment.bytes.len();
        if flat.len() < end {
            flat.resize(end, 0);
        }
        flat[start..end].copy_from_slice(segment.bytes);
    }
    if flat.get(ZIMAGE_MAGIC_OFFSET..ZIMAGE_MAGIC_OFFSET + 4) != Some(&ZIMAGE_MAGIC) {
        return Err("the ELF file does not begin with a zImage header".into());
    }
    Ok(flat)
}

struct Segment<'a> {
    /// Physical.
    address: u32,
    /// Virtual.
    linked: u32,
    /// Where in the file.
    offset: usize,
    bytes: &'a [u8],
}

/// System V ABI, chapters 4 (ELF header) and 5 (program header).
fn load_segments(elf: &[u8]) -> Option<Vec<Segment<'_>>> {
    if !elf.starts_with(b"\x7fELF\x01\x01") {
        return None;
    }
    let (table, entry_size, entries) = (
        word(elf, 0x1c)? as usize,
        half(elf, 0x2a)? as usize,
        half(elf, 0x2c)? as usize,
    );
    let mut segments = Vec::new();
    for header in (0..entries).map(|index| table + index * entry_size) {
        let (offset, size) = (
            word(elf, header + 4)? as usize,
            word(elf, header + 16)? as usize,
        );
        if word(elf, header)? == PT_LOAD && size > 0 {
            let bytes = elf.get(offset..offset.checked_add(size)?)?;
            segments.push(Segment {
                address: word(elf, header + 12)?,
                linked: word(elf, header + 8)?,
                offset,
                bytes,
            });
        }
    }
    Some(segments)
}

/// Returns where in an ELF file the `size` bytes are that are loaded for a virtual address.
pub fn offset_of(elf: &[u8], address: u32, size: u32) -> Option<usize> {
    load_segments(elf)?.into_iter().find_map(|segment| {
        let start = address.checked_sub(segment.linked)? as usize;
        let end = start.checked_add(size as usize)?;
        (end <= segment.bytes.len()).then_some(segment.offset + start)
    })
}

pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Puts U-Boot's legacy header (include/image.h: struct legacy_img_hdr) before a flat binary for `bootm`.
/// U-Boot copies the binary to `load` and enters it there. The time is zero, so equal input gives equal output.
pub fn uimage(flat: &[u8], load: u32) -> Vec<u8> {
    const MAGIC: u32 = 0x2705_1956;
    const OS_LINUX: u8 = 5;
    const ARCH_ARM: u8 = 2;
    const TYPE_KERNEL: u8 = 2;
    const COMPRESSION_NONE: u8 = 0;
    const HEADER_CRC: std::ops::Range<usize> = 4..8;

    let mut header = Vec::with_capacity(64 + flat.len());
    let (time, size, entry) = (0, flat.len() as u32, load);
    for field in [MAGIC, 0, time, size, load, entry, crc32(flat)] {
        header.extend(field.to_be_bytes());
    }
    header.extend([OS_LINUX, ARCH_ARM, TYPE_KERNEL, COMPRESSION_NONE]);
    let mut name = [0; 32];
    name[..7].copy_from_slice(b"Krypton");
    header.extend(name);
    let crc = crc32(&header);
    header[HEADER_CRC].copy_from_slice(&crc.to_be_bytes());
    header.extend(flat);
    header
}

/// CRC-32 of ISO 3309, as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{crc32, flatten, uimage};

    /// Returns an ELF file with two segments, at 0x40000000 (with a zImage header) and 0x40001000, stored in reverse order.
    fn elf() -> Vec<u8> {
        let mut file = vec![0; 0x34];
        file[..6].copy_from_slice(b"\x7fELF\x01\x01");
        file[0x1c] = 0x34;
        file[0x2a] = 32;
        file[0x2c] = 2;
        for (offset, address, size) in [
            (0x100_u32, 0x4000_1000_u32, 4_u32),
            (0x80, 0x4000_0000, 0x28),
        ] {
            for field in [1, offset, 0xc000_0000, address, size, 0x2000, 5, 4096] {
                file.extend(field.to_le_bytes());
            }
        }
        file.resize(0x104, 0xee);
        file[0xa4..0xa8].copy_from_slice(&0x016f_2818_u32.to_le_bytes());
        file
    }

    #[test]
    fn segments_land_at_their_distance_in_memory() {
        let flat = flatten(&elf()).unwrap();
        assert_eq!(flat.len(), 0x1004);
        assert_eq!(flat[0x28..0x1000], [0; 0xfd8]);
        assert_eq!(flat[0x1000..], [0xee; 4]);
    }

    #[test]
    fn no_prefix_of_an_elf_file_is_taken_for_one() {
        let elf = elf();
        for length in 0..elf.len() {
            assert!(flatten(&elf[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn an_image_without_zimage_header_is_refused() {
        let mut elf = elf();
        elf[0xa4] = 0;
        assert!(flatten(&elf).is_err());
    }

    #[test]
    fn crc32_is_the_one_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_uimage_header_is_64_bytes_with_both_checksums() {
        let image = uimage(b"123456789", 0x4100_0000);
        assert_eq!(image.len(), 64 + 9);
        assert_eq!(image[..4], [0x27, 0x05, 0x19, 0x56]);
        assert_eq!(image[16..20], 0x4100_0000_u32.to_be_bytes());
        assert_eq!(image[24..28], 0xcbf4_3926_u32.to_be_bytes());
        let mut header = image[..64].to_vec();
        header[4..8].fill(0);
        assert_eq!(image[4..8], crc32(&header).to_be_bytes());
    }
}

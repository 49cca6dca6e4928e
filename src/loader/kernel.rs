//! The kind of kernel that a module holds, and where it wants to be.
//!
//! Accepted are ARM zImages (Linux Documentation/arm/booting; header at 0x24) and legacy U-Boot images around an
//! uncompressed ARM kernel. A gzip file is refused by name: Debian and everybody else ships zImages for ARM, so an
//! inflate in the hypervisor would be code that no boot uses.

use alloc::format;

use super::Refused;

/// Bytes of the module that [`KernelImage::parse`] wants to see.
pub const HEADER_SIZE: usize = UIMAGE_HEADER + ZIMAGE_HEADER;

const ZIMAGE_MAGIC: u32 = 0x016f_2818;
const ZIMAGE_MAGIC_AT: usize = 0x24;
const ZIMAGE_START_AT: usize = 0x28;
const ZIMAGE_END_AT: usize = 0x2c;
const ZIMAGE_ENDIAN_AT: usize = 0x30;
const ZIMAGE_HEADER: usize = 0x34;
const BIG_ENDIAN: u32 = 0x0102_0304;

const UIMAGE_MAGIC: u32 = 0x2705_1956;
const UIMAGE_HEADER: usize = 64;
const UIMAGE_SIZE_AT: usize = 12;
const UIMAGE_LOAD_AT: usize = 16;
const UIMAGE_ENTRY_AT: usize = 20;
const UIMAGE_ARCH_AT: usize = 29;
const UIMAGE_TYPE_AT: usize = 30;
const UIMAGE_COMPRESSION_AT: usize = 31;
const ARCH_ARM: u8 = 2;
const TYPE_KERNEL: u8 = 2;
const TYPE_KERNEL_NOLOAD: u8 = 14;

/// A kernel that can be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelImage {
    /// Bytes of the module before the kernel.
    pub offset: u64,
    /// Bytes of the kernel.
    pub size: u64,
    /// Where it must be; `None` when it runs anywhere.
    pub load: Option<u64>,
    /// Its first instruction, counted from where it is loaded.
    pub entry_offset: u64,
}

impl KernelImage {
    /// Looks at the first bytes of a module of `module_size` bytes; up to [`HEADER_SIZE`] of them are used.
    pub fn parse(header: &[u8], module_size: u64) -> Result<Self, Refused> {
        match header {
            [0x1f, 0x8b, ..] => Err(refused("is compressed with gzip; give the zImage itself")),
            _ if big(header, 0) == Some(UIMAGE_MAGIC) => Self::uimage(header, module_size),
            _ => Self::zimage(header, module_size),
        }
    }

    fn zimage(header: &[u8], module_size: u64) -> Result<Self, Refused> {
        let magic = little(header, ZIMAGE_MAGIC_AT).unwrap_or(0);
        if magic == ZIMAGE_MAGIC.swap_bytes() {
            return Err(refused("is big-endian"));
        }
        if magic != ZIMAGE_MAGIC {
            return Err(refused(&format!("not an ARM zImage ({magic:#010x})")));
        }
        if little(header, ZIMAGE_ENDIAN_AT) == Some(BIG_ENDIAN) {
            return Err(refused("is big-endian"));
        }
        let start = little(header, ZIMAGE_START_AT).unwrap_or(0);
        let end = little(header, ZIMAGE_END_AT).unwrap_or(0);
        let size = u64::from(end).checked_sub(u64::from(start));
        match size {
            // The kernel may be followed by an appended device tree, which nobody needs.
            Some(size) if size >= ZIMAGE_HEADER as u64 && size <= module_size => Ok(Self {
                offset: 0,
                size,
                load: (start != 0).then_some(u64::from(start)),
                entry_offset: 0,
            }),
            _ => Err(refused(&format!(
                "has {start:#x} to {end:#x} in its header, the module has {module_size:#x} bytes"
            ))),
        }
    }

    fn uimage(header: &[u8], module_size: u64) -> Result<Self, Refused> {
        let byte = |at: usize| header.get(at).copied().unwrap_or(0);
        let word = |at: usize| u64::from(big(header, at).unwrap_or(0));
        let (arch, kind, compression) = (
            byte(UIMAGE_ARCH_AT),
            byte(UIMAGE_TYPE_AT),
            byte(UIMAGE_COMPRESSION_AT),
        );
        if arch != ARCH_ARM {
            return Err(refused(&format!(
                "is a uImage of architecture {arch}, not ARM"
            )));
        }
        if !matches!(kind, TYPE_KERNEL | TYPE_KERNEL_NOLOAD) {
            return Err(refused(&format!(
                "is a uImage of type {kind}, not a kernel"
            )));
        }
        if compression != 0 {
            return Err(refused(&format!(
                "is a uImage with compression {compression}; give an uncompressed one"
            )));
        }
        let size = word(UIMAGE_SIZE_AT);
        let payload = module_size.saturating_sub(UIMAGE_HEADER as u64);
        if size == 0 || size > payload {
            return Err(refused(&format!(
                "is a uImage of {size:#x} bytes, the module has {payload:#x}"
            )));
        }
        let (load, entry) = (word(UIMAGE_LOAD_AT), word(UIMAGE_ENTRY_AT));
        let anywhere = kind == TYPE_KERNEL_NOLOAD || (load == 0 && entry == 0);
        let entry_offset = match anywhere {
            true => Some(entry),
            false => entry.checked_sub(load),
        };
        match entry_offset {
            Some(entry_offset) if entry_offset < size => Ok(Self {
                offset: UIMAGE_HEADER as u64,
                size,
                load: (!anywhere).then_some(load),
                entry_offset,
            }),
            _ => Err(refused(&format!(
                "is a uImage for {load:#x} with its entry at {entry:#x}, outside"
            ))),
        }
    }
}

fn refused(why: &str) -> Refused {
    Refused(format!("kernel image {why}"))
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    little(bytes, at).map(u32::swap_bytes)
}

#[cfg(test)]
mod tests {
    use super::{HEADER_SIZE, KernelImage};
    use alloc::string::{String, ToString};
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::{any, proptest};

    fn zimage(start: u32, end: u32) -> Vec<u8> {
        let mut header = vec![0; 0x60];
        for (at, word) in [
            (0x24, 0x016f_2818),
            (0x28, start),
            (0x2c, end),
            (0x30, 0x0403_0201),
        ] {
            header[at..at + 4].copy_from_slice(&u32::to_le_bytes(word));
        }
        header
    }

    fn uimage(size: u32, load: u32, entry: u32, kind: [u8; 3]) -> Vec<u8> {
        let mut header = vec![0; 64];
        for (at, word) in [(0, 0x2705_1956), (12, size), (16, load), (20, entry)] {
            header[at..at + 4].copy_from_slice(&u32::to_be_bytes(word));
        }
        header[29..32].copy_from_slice(&kind);
        header
    }

    fn refusal(header: &[u8], size: u64) -> String {
        KernelImage::parse(header, size).unwrap_err().to_string()
    }

    #[test]
    fn a_zimage_runs_anywhere_or_where_it_says() {
        let image = KernelImage::parse(&zimage(0, 0x5a_7000), 0x5a_7000).unwrap();
        assert_eq!((image.offset, image.size, image.load), (0, 0x5a_7000, None));
        let image = KernelImage::parse(&zimage(0x4800_8000, 0x4810_8000), 0x20_0000).unwrap();
        assert_eq!((image.size, image.load), (0x10_0000, Some(0x4800_8000)));
    }

    #[test]
    fn what_is_not_a_kernel_is_refused_by_what_it_is() {
        assert_eq!(
            refusal(&[0; 0x40], 64),
            "kernel image not an ARM zImage (0x00000000)"
        );
        assert!(refusal(&[0x1f, 0x8b, 8], 64).contains("gzip"));
        assert!(refusal(&[], 0).contains("not an ARM zImage"));
        let mut big_endian = zimage(0, 0x1000);
        big_endian[0x30..0x34].copy_from_slice(&0x0102_0304u32.to_le_bytes());
        assert!(refusal(&big_endian, 0x1000).contains("big-endian"));
    }

    #[test]
    fn a_header_that_contradicts_the_module_is_refused() {
        assert!(refusal(&zimage(0, 0x1001), 0x1000).contains("0x1000 bytes"));
        assert!(refusal(&zimage(0x2000, 0x1000), 0x1000).contains("0x2000 to 0x1000"));
        assert!(refusal(&zimage(0, 0), 0x1000).contains("0x0 to 0x0"));
    }

    #[test]
    fn a_uimage_around_an_uncompressed_arm_kernel_is_taken() {
        let header = uimage(0x1000, 0x4000_8000, 0x4000_8040, [2, 2, 0]);
        let image = KernelImage::parse(&header, 0x1040).unwrap();
        assert_eq!((image.offset, image.size), (64, 0x1000));
        assert_eq!((image.load, image.entry_offset), (Some(0x4000_8000), 0x40));
        let noload = KernelImage::parse(&uimage(0x1000, 0, 0, [2, 14, 0]), 0x1040).unwrap();
        assert_eq!(noload.load, None);
    }

    #[test]
    fn other_uimages_are_refused() {
        assert!(refusal(&uimage(16, 0, 0, [22, 2, 0]), 80).contains("architecture 22"));
        assert!(refusal(&uimage(16, 0, 0, [2, 3, 0]), 80).contains("type 3"));
        assert!(refusal(&uimage(16, 0, 0, [2, 2, 1]), 80).contains("compression 1"));
        assert!(refusal(&uimage(17, 0, 0, [2, 2, 0]), 80).contains("0x11 bytes"));
        assert!(refusal(&uimage(16, 64, 32, [2, 2, 0]), 80).contains("outside"));
    }

    proptest! {
        #[test]
        fn any_header_is_taken_or_refused_without_a_panic(
            mut header in proptest::collection::vec(any::<u8>(), 0..HEADER_SIZE),
            kind in 0u8..3,
            size in any::<u64>(),
        ) {
            let (at, magic) = if kind == 1 { (0x24, 0x016f_2818) } else { (0, 0x5619_0527) };
            if kind > 0 && header.len() > at + 4 {
                header[at..at + 4].copy_from_slice(&u32::to_le_bytes(magic));
            }
            let _ = KernelImage::parse(&header, size);
        }
    }
}

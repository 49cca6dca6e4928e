//! The bytes of boot modules into a guest's memory, and its first vCPU ready to run them.

use alloc::format;
use alloc::vec::Vec;

use armv7::addr::{Mfn, PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use armv7::{cache, frame};

use super::Refused;
use super::kernel::{self, KernelImage};
use super::place::Placement;
use crate::domain::Domain;
use crate::id::VcpuId;
use crate::mem::p2m::Access;
use crate::platform::modules::Module;
use crate::vcpu::{Registers, halt};

/// The parts that a guest starts with.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The module with its kernel.
    pub kernel: &'a Module,
    /// The part of it that is the kernel.
    pub image: &'a KernelImage,
    /// The module with its initial RAM disk.
    pub ramdisk: Option<&'a Module>,
    /// Its device tree.
    pub tree: &'a [u8],
}

/// Returns the kernel that is in a module.
pub fn kernel_of(module: &Module) -> Result<KernelImage, Refused> {
    let mut header = [0; kernel::HEADER_SIZE];
    let size = module.range.size();
    let known = header.get_mut(..size.min(kernel::HEADER_SIZE as u64) as usize);
    let known = known.unwrap_or(&mut []);
    read(module.range.base(), known);
    KernelImage::parse(known, size)
}

/// Returns all bytes of a module, of at most `most`.
pub fn bytes_of(module: &Module, most: usize) -> Result<Vec<u8>, Refused> {
    let path = &module.path;
    let size = usize::try_from(module.range.size()).ok();
    let size = size.filter(|size| *size <= most);
    let size = size.ok_or_else(|| Refused(format!("{path}: more than {most} bytes")))?;
    let mut bytes = Vec::new();
    let no_memory = |_| Refused(format!("{path}: no memory for it"));
    bytes.try_reserve_exact(size).map_err(no_memory)?;
    bytes.resize(size, 0);
    read(module.range.base(), &mut bytes);
    Ok(bytes)
}

/// Copies everything to its place in the memory of `domain`, cleaned to memory: a guest starts with its caches off.
pub fn load(domain: &Domain, parts: &Parts<'_>, place: &Placement) -> Result<(), Refused> {
    let kernel = &parts.kernel.range;
    log::info!(
        "Loading zImage from {:#x} to {:#x}-{:#x}",
        kernel.base(),
        place.kernel.base(),
        place.kernel.end()
    );
    let start = kernel.base() + parts.image.offset;
    copy(domain, place.kernel.base(), start, parts.image.size)?;
    if let (Some(module), Some(at)) = (parts.ramdisk, place.ramdisk) {
        log::info!(
            "Loading {domain} initrd from {:#x} to {:#x}-{:#x}",
            module.range.base(),
            at.base(),
            at.end()
        );
        copy(domain, at.base(), module.range.base(), module.range.size())?;
    }
    log::info!(
        "Loading {domain} DTB to {:#x}-{:#x}",
        place.tree.base(),
        place.tree.base() + parts.tree.len() as u64
    );
    write(domain, place.tree.base(), parts.tree)?;
    cache::invalidate_instruction_caches();
    Ok(())
}

/// Makes the first vCPU begin with the kernel, as the ARM boot protocol has it.
pub fn start(domain: &Domain, place: &Placement) -> Result<(), Refused> {
    let low = |address: u64, what: &str| {
        u32::try_from(address).map_err(|_| Refused(format!("{what} above 4 GiB")))
    };
    let entry = low(place.entry, "kernel")?;
    let tree = low(place.tree.base(), "device tree")?;
    let vcpu = domain
        .vcpu(VcpuId::ZERO)
        .ok_or_else(|| Refused("no vCPU".into()))?;
    let mut registers = vcpu.registers.lock();
    *registers = Registers::start(entry, 0);
    registers.context.r[1] = u32::MAX;
    registers.context.r[2] = tree;
    drop(registers);
    vcpu.set_initialised(true);
    vcpu.unhalt(halt::OFFLINE);
    Ok(())
}

/// Calls `f` for each page of `len` bytes at `base`: its address, and the range of the bytes.
fn each_page(
    base: u64,
    len: usize,
    mut f: impl FnMut(u64, core::ops::Range<usize>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut done = 0;
    while done < len {
        let at = base + done as u64;
        let count = (len - done).min(PAGE_SIZE - offset(at));
        f(at, done..done + count)?;
        done += count;
    }
    Ok(())
}

const fn offset(at: u64) -> usize {
    at as usize & (PAGE_SIZE - 1)
}

/// Reads a module's bytes: what is no RAM stays as it was in `out`.
fn read(base: u64, out: &mut [u8]) {
    #[expect(
        clippy::let_underscore_must_use,
        reason = "the closure refuses nothing"
    )]
    let _ = each_page(base, out.len(), |at, range| {
        if let (Some(at), Some(out)) = (PhysAddr::new(at), out.get_mut(range)) {
            frame::with(at.frame(), |page| page.read(at.offset(), out));
        }
        Ok(())
    });
}

/// Writes to a guest's own memory.
fn write(domain: &Domain, base: u64, data: &[u8]) -> Result<(), Refused> {
    each_page(base, data.len(), |at, range| {
        let mfn = own_page(domain, at)?;
        let written = data.get(range).and_then(|data| {
            frame::with(mfn, |page| {
                page.write(offset(at), data);
                cache::page_range(page, offset(at), data.len(), cache::Op::Clean);
            })
        });
        written.ok_or_else(|| Refused(format!("the memory at {at:#x} cannot be reached")))
    })
}

/// Returns the frame of a guest's own memory at an address.
fn own_page(domain: &Domain, at: u64) -> Result<Mfn, Refused> {
    let entry = domain.entry_at(at >> PAGE_SHIFT);
    let own = entry.filter(|entry| entry.kind.is_own_ram() && entry.kind.allows(Access::Write));
    own.map(|entry| entry.mfn)
        .ok_or_else(|| Refused(format!("{at:#x} is not in its memory")))
}

/// Copies from RAM into a guest's memory, which the source is no part of.
fn copy(domain: &Domain, to: u64, from: u64, len: u64) -> Result<(), Refused> {
    const AT_ONCE: u64 = 1024;
    let mut buffer = [0; AT_ONCE as usize];
    let mut done = 0;
    while done < len {
        let count = (len - done).min(AT_ONCE);
        if let Some(part) = buffer.get_mut(..count as usize) {
            read(from + done, part);
            write(domain, to + done, part)?;
        }
        done += count;
    }
    Ok(())
}

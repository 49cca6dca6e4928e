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
    let mut loading = Loading::default();
    while !loading.step(domain, parts, place)? {}
    Ok(())
}

/// Bytes that are copied in one go.
const AT_ONCE: usize = 1024;

/// The state of a [`load`] that is done in pieces.
#[derive(Debug, Default)]
pub struct Loading {
    part: Part,
    /// Bytes of this part that are in place.
    done: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Kernel,
    Ramdisk,
    Tree,
}

impl Loading {
    /// Copies the next piece. Returns true when everything is in place.
    pub fn step(
        &mut self,
        domain: &Domain,
        parts: &Parts<'_>,
        place: &Placement,
    ) -> Result<bool, Refused> {
        let source = |module: &Module| module.range.base();
        match (self.part, parts.ramdisk.zip(place.ramdisk)) {
            (Part::Kernel, _) => {
                let kernel = source(parts.kernel);
                let to = place.kernel;
                if self.done == 0 {
                    let (base, end) = (to.base(), to.end());
                    log::info!("Loading zImage from {kernel:#x} to {base:#x}-{end:#x}");
                }
                let from = kernel + parts.image.offset;
                if self.copy_some(domain, to.base(), from, parts.image.size)? {
                    self.go_to(Part::Ramdisk);
                }
            }
            (Part::Ramdisk, Some((module, to))) => {
                let from = source(module);
                if self.done == 0 {
                    let (base, end) = (to.base(), to.end());
                    log::info!("Loading {domain} initrd from {from:#x} to {base:#x}-{end:#x}");
                }
                if self.copy_some(domain, to.base(), from, module.range.size())? {
                    self.go_to(Part::Tree);
                }
            }
            (Part::Ramdisk, None) => self.go_to(Part::Tree),
            (Part::Tree, _) => {
                let base = place.tree.base();
                if self.done == 0 {
                    let end = base + parts.tree.len() as u64;
                    log::info!("Loading {domain} DTB to {base:#x}-{end:#x}");
                }
                let left = parts.tree.get(self.done as usize..).unwrap_or_default();
                let (some, rest) = left.split_at(left.len().min(AT_ONCE));
                write(domain, base + self.done, some)?;
                self.done += some.len() as u64;
                if rest.is_empty() {
                    cache::invalidate_instruction_caches();
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn go_to(&mut self, part: Part) {
        *self = Self { part, done: 0 };
    }

    /// Copies the next bytes of `len` at `from`, which is no part of the guest's memory. Returns true after the last.
    fn copy_some(
        &mut self,
        domain: &Domain,
        to: u64,
        from: u64,
        len: u64,
    ) -> Result<bool, Refused> {
        let mut buffer = [0; AT_ONCE];
        let count = len.saturating_sub(self.done).min(AT_ONCE as u64);
        if let Some(part) = buffer.get_mut(..count as usize) {
            read(from + self.done, part);
            write(domain, to + self.done, part)?;
        }
        self.done += count;
        Ok(self.done >= len)
    }
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
    // It has not run: nobody has its registers.
    let registers = vcpu.registers.try_lock();
    let mut registers = registers.ok_or_else(|| Refused("its vCPU is in use".into()))?;
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

//! The kernel's side: hypercalls and a domain's pages by `/dev/xen/privcmd`. All `unsafe` of this program is here.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

use crate::machine::PAGE;

#[allow(non_camel_case_types)]
type off_t = std::ffi::c_long;

unsafe extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: off_t,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, length: usize) -> c_int;
}

const PROT_READ: c_int = 1;
const PROT_WRITE: c_int = 2;
const MAP_SHARED: c_int = 1;

/// `_IOC(_IOC_NONE, 'P', number, size)` (include/uapi/xen/privcmd.h).
const fn request(number: c_ulong, size: usize) -> c_ulong {
    (size as c_ulong) << 16 | (b'P' as c_ulong) << 8 | number
}

/// `struct privcmd_hypercall`.
#[repr(C)]
struct Hypercall {
    op: u64,
    arguments: [u64; 5],
}

/// `struct privcmd_mmapbatch_v2`.
#[repr(C)]
struct MapBatch {
    count: u32,
    domain: u16,
    address: u64,
    frames: *const u64,
    errors: *mut c_int,
}

/// `struct privcmd_mmap_resource`.
#[repr(C)]
struct MapResource {
    domain: u16,
    kind: u32,
    id: u32,
    index: u32,
    count: u64,
    address: u64,
}

/// `XENMEM_resource_grant_table`.
const GRANT_TABLE: u32 = 1;

/// Memory that is mapped here, until it is dropped.
struct Mapping {
    at: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(fd: RawFd, length: usize, protection: c_int) -> io::Result<Self> {
        // SAFETY: asks for a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap(std::ptr::null_mut(), length, protection, MAP_SHARED, fd, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(at) if at.as_ptr() as isize != -1 => Ok(Self { at, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody borrows it any more.
        unsafe { munmap(self.at.as_ptr().cast(), self.length) };
    }
}

/// Memory for the arguments of hypercalls, which stays where it is.
pub struct Buffer(Mapping);

impl Buffer {
    /// Returns zeroed memory of at least `length` bytes.
    pub fn new(length: usize) -> io::Result<Self> {
        let file = open("/dev/xen/hypercall")?;
        let length = length.max(1).next_multiple_of(PAGE);
        let mapping = Mapping::new(file.as_raw_fd(), length, PROT_READ | PROT_WRITE)?;
        let mut buffer = Self(mapping);
        // Linux lets a page be written only from its first write on, which must not be the hypervisor's.
        buffer.bytes().fill(0);
        Ok(buffer)
    }

    /// Returns its address as a structure of the ABI holds it.
    pub fn address(&self) -> u64 {
        self.0.at.as_ptr() as usize as u64
    }

    /// Returns its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours alone for as long as it is borrowed: hypercalls are made by `&mut` only.
        unsafe { std::slice::from_raw_parts_mut(self.0.at.as_ptr(), self.0.length) }
    }
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| {
            let hint =
                "is this the control domain, are you root, is the module xen-privcmd loaded?";
            io::Error::new(error.kind(), format!("{path}: {error} ({hint})"))
        })
}

/// The way to the hypervisor.
pub struct Privcmd(File);

impl Privcmd {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        Ok(Self(open("/dev/xen/privcmd")?))
    }

    /// Makes a hypercall, with the address of `argument` as argument `place`.
    pub fn call(
        &self,
        op: u64,
        mut arguments: [u64; 5],
        place: usize,
        argument: &mut Buffer,
    ) -> io::Result<u32> {
        arguments[place] = argument.address();
        let call = Hypercall { op, arguments };
        // SAFETY: the kernel reads the structure; the hypervisor reads and writes what `argument` and the buffers named in it
        // hold, which is memory that the caller borrows mutably or keeps for this call.
        let answer = unsafe {
            ioctl(
                self.0.as_raw_fd(),
                request(0, size_of::<Hypercall>()),
                &raw const call,
            )
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(answer as u32)
    }

    /// Maps a frame of a domain's grant table.
    pub fn map_grants(&self, domain: u16, index: u32) -> io::Result<Pages> {
        let mapping = Mapping::new(self.0.as_raw_fd(), PAGE, PROT_READ | PROT_WRITE)?;
        let resource = MapResource {
            domain,
            kind: GRANT_TABLE,
            id: 0,
            index,
            count: 1,
            address: mapping.at.as_ptr() as usize as u64,
        };
        // SAFETY: the kernel reads the structure, and fills the mapping, which is ours.
        let answer = unsafe {
            ioctl(
                self.0.as_raw_fd(),
                request(7, size_of::<MapResource>()),
                &raw const resource,
            )
        };
        match answer {
            0 => Ok(Pages(mapping)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Maps pages of a domain: all of them or none.
    pub fn map(&self, domain: u16, frames: &[u64], writable: bool) -> io::Result<Pages> {
        let protection = if writable {
            PROT_READ | PROT_WRITE
        } else {
            PROT_READ
        };
        let length = frames.len() * PAGE;
        let mapping = Mapping::new(self.0.as_raw_fd(), length, protection)?;
        let mut errors = vec![0; frames.len()];
        let batch = MapBatch {
            count: frames.len() as u32,
            domain,
            address: mapping.at.as_ptr() as usize as u64,
            frames: frames.as_ptr(),
            errors: errors.as_mut_ptr(),
        };
        // SAFETY: the kernel reads the structure and `frames`, writes `errors`, and fills the mapping, which is ours.
        let answer = unsafe {
            ioctl(
                self.0.as_raw_fd(),
                request(4, size_of::<MapBatch>()),
                &raw const batch,
            )
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        if let Some(n) = errors.iter().position(|error| *error != 0) {
            let frame = frames[n];
            let error = io::Error::from_raw_os_error(-errors[n]);
            return Err(io::Error::other(format!("frame {frame:#x}: {error}")));
        }
        Ok(Pages(mapping))
    }
}

/// Pages of a domain, mapped here until the value is dropped. The domain does not run meanwhile, or what is read is a copy that
/// may be torn.
pub struct Pages(Mapping);

impl Pages {
    fn at(&self, n: usize) -> NonNull<u8> {
        assert!((n + 1) * PAGE <= self.0.length);
        // SAFETY: inside the mapping.
        unsafe { self.0.at.add(n * PAGE) }
    }

    /// Copies page `n` out.
    pub fn read(&self, n: usize, to: &mut [u8; PAGE]) {
        // SAFETY: a page of the mapping, copied to memory of this program; no reference to the domain's memory is made.
        unsafe {
            self.at(n)
                .as_ptr()
                .copy_to_nonoverlapping(to.as_mut_ptr(), PAGE)
        };
    }

    /// Copies to the first page, from a byte on, of pages that were mapped writable.
    pub fn write_from(&mut self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= PAGE);
        // SAFETY: as for the read.
        unsafe {
            from.as_ptr()
                .copy_to_nonoverlapping(self.at(0).as_ptr().add(at), from.len())
        };
    }

    /// Copies to page `n`, of pages that were mapped writable.
    pub fn write(&mut self, n: usize, from: &[u8; PAGE]) {
        // SAFETY: as for the read.
        unsafe {
            from.as_ptr()
                .copy_to_nonoverlapping(self.at(n).as_ptr(), PAGE)
        };
    }
}

//! The page that every domain shares with the hypervisor, and `vcpu_info` (xen/include/public/xen.h, arch-arm.h).
//!
//! Nobody makes a Rust reference to these structures: they are in guest memory. They exist for their offsets.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `vcpu_time_info`: all zero on ARM, where guests read the virtual counter.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuTimeInfo {
    /// Odd while changing.
    pub version: u32,
    /// Padding.
    pub pad0: u32,
    /// Unused on ARM.
    pub tsc_timestamp: u64,
    /// Unused on ARM.
    pub system_time: u64,
    /// Unused on ARM.
    pub tsc_to_system_mul: u32,
    /// Unused on ARM.
    pub tsc_shift: i8,
    /// Unused on ARM.
    pub flags: u8,
    /// Padding.
    pub pad1: [u8; 2],
}

/// `vcpu_info`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuInfo {
    /// Non-zero: events are waiting.
    pub evtchn_upcall_pending: u8,
    /// Padding; the first byte would be `evtchn_upcall_mask`, which ARM does not have.
    pub pad: [u8; 7],
    /// Two-level: bit n: word n of `evtchn_pending` may hold something.
    pub evtchn_pending_sel: u64,
    /// Unused on ARM.
    pub time: VcpuTimeInfo,
}

/// `shared_info`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SharedInfo {
    /// vCPU 0's initial `vcpu_info` (`XEN_LEGACY_MAX_VCPUS` is 1).
    pub vcpu_info: [VcpuInfo; 1],
    /// Two-level: the event happened.
    pub evtchn_pending: [u64; 64],
    /// Two-level: the guest does not want to hear of it.
    pub evtchn_mask: [u64; 64],
    /// Wall clock: odd while changing.
    pub wc_version: u32,
    /// Wall clock at system time 0, seconds.
    pub wc_sec: u32,
    /// Wall clock at system time 0, nanoseconds.
    pub wc_nsec: u32,
    /// Wall clock at system time 0, upper half of the seconds.
    pub wc_sec_hi: u32,
}

const _: () = {
    assert!(size_of::<VcpuTimeInfo>() == 32);
    assert!(offset_of!(VcpuTimeInfo, flags) == 29);
    assert!(size_of::<VcpuInfo>() == 48);
    assert!(offset_of!(VcpuInfo, evtchn_pending_sel) == 8);
    assert!(offset_of!(VcpuInfo, time) == 16);
    assert!(size_of::<SharedInfo>() == 1088);
    assert!(offset_of!(SharedInfo, evtchn_pending) == 48);
    assert!(offset_of!(SharedInfo, evtchn_mask) == 560);
    assert!(offset_of!(SharedInfo, wc_version) == 1072);
    assert!(offset_of!(SharedInfo, wc_sec) == 1076);
    assert!(offset_of!(SharedInfo, wc_nsec) == 1080);
    assert!(offset_of!(SharedInfo, wc_sec_hi) == 1084);
};

/// Offset of [`SharedInfo::wc_version`].
pub const WC_VERSION: usize = offset_of!(SharedInfo, wc_version);
/// Offset of [`SharedInfo::wc_sec`].
pub const WC_SEC: usize = offset_of!(SharedInfo, wc_sec);
/// Offset of [`SharedInfo::wc_nsec`].
pub const WC_NSEC: usize = offset_of!(SharedInfo, wc_nsec);
/// Offset of [`SharedInfo::wc_sec_hi`].
pub const WC_SEC_HI: usize = offset_of!(SharedInfo, wc_sec_hi);

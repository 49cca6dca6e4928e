//! The page that every domain shares with the hypervisor, and `vcpu_info` (xen/include/public/xen.h, arch-arm.h).
//!
//! These structures are in guest memory, so no Rust reference to them exists; they define offsets.

use core::mem::offset_of;

use crate::abi::layout::Layout;
use crate::abi_struct;

abi_struct! {
    /// All zero on ARM, where guests read the virtual counter.
    pub struct VcpuTimeInfo: "struct vcpu_time_info", 32, align 8 {
        /// Odd while changing.
        0 "version" => version: u32,
        4 _ => _pad0: u32,
        /// Unused on ARM.
        8 "tsc_timestamp" => tsc_timestamp: u64,
        /// Unused on ARM.
        16 "system_time" => system_time: u64,
        /// Unused on ARM.
        24 "tsc_to_system_mul" => tsc_to_system_mul: u32,
        /// Unused on ARM.
        28 "tsc_shift" => tsc_shift: i8,
        /// Unused on ARM.
        29 "flags" => flags: u8,
        30 _ => _pad1: [u8; 2],
    }
}

abi_struct! {
    /// The words that a vCPU shares with the hypervisor.
    pub struct VcpuInfo: "struct vcpu_info", 48, align 8 {
        /// Non-zero: events are waiting.
        0 "evtchn_upcall_pending" => evtchn_upcall_pending: u8,
        // Its first byte would be `evtchn_upcall_mask`, which ARM does not have.
        1 _ => _pad: [u8; 7],
        /// Two-level: bit n: word n of `evtchn_pending` may hold something.
        8 "evtchn_pending_sel" => evtchn_pending_sel: u64,
        /// Unused on ARM.
        16 "time" => time: VcpuTimeInfo,
    }
}

abi_struct! {
    /// The page that a domain shares with the hypervisor: the first bytes of a page, the rest of which is zero.
    pub struct SharedInfo: "struct shared_info", 1088, align 8 {
        /// vCPU 0's initial `vcpu_info` (`XEN_LEGACY_MAX_VCPUS` is 1).
        0 "vcpu_info" => vcpu_info: [VcpuInfo; 1],
        /// Two-level: the event happened.
        48 "evtchn_pending" => evtchn_pending: [u64; 64],
        /// Two-level: the event is masked.
        560 "evtchn_mask" => evtchn_mask: [u64; 64],
        /// Wall clock: odd while changing.
        1072 "wc_version" => wc_version: u32,
        /// Wall clock at system time 0, seconds.
        1076 "wc_sec" => wc_sec: u32,
        /// Wall clock at system time 0, nanoseconds.
        1080 "wc_nsec" => wc_nsec: u32,
        /// Wall clock at system time 0, upper half of the seconds.
        1084 "wc_sec_hi" => wc_sec_hi: u32,
    }
}

/// Offset of [`SharedInfo::wc_version`].
pub const WC_VERSION: usize = offset_of!(SharedInfo, wc_version);
/// Offset of [`SharedInfo::wc_sec`].
pub const WC_SEC: usize = offset_of!(SharedInfo, wc_sec);
/// Offset of [`SharedInfo::wc_nsec`].
pub const WC_NSEC: usize = offset_of!(SharedInfo, wc_nsec);
/// Offset of [`SharedInfo::wc_sec_hi`].
pub const WC_SEC_HI: usize = offset_of!(SharedInfo, wc_sec_hi);

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[VcpuTimeInfo::LAYOUT, VcpuInfo::LAYOUT, SharedInfo::LAYOUT];

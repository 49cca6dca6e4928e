//! Platform operations (xen/include/public/platform.h).

use zerocopy::{FromBytes, IntoBytes};

use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// The only `interface_version`.
    INTERFACE_VERSION: u32 = 0x0300_0001, "XENPF_INTERFACE_VERSION";
    /// Sets the wall clock.
    OP_SETTIME64: u32 = 62, "XENPF_settime64";
}

abi_struct! {
    /// Argument of every platform operation.
    pub struct PlatformOp: "struct xen_platform_op", 136, align 8 {
        /// The operation.
        0 "cmd" => cmd: u32,
        /// [`INTERFACE_VERSION`].
        4 "interface_version" => interface_version: u32,
        /// Argument of the operation.
        8 "u" => body: [u64; 16],
    }
}

impl PlatformOp {
    /// Returns the body as the argument of [`OP_SETTIME64`].
    pub fn settime64(&self) -> Option<SetTime64> {
        SetTime64::read_from_prefix(self.body.as_bytes())
            .ok()
            .map(|(op, _)| op)
    }
}

abi_struct! {
    /// Body of [`OP_SETTIME64`].
    pub struct SetTime64: "struct xenpf_settime64", 24, align 8 {
        /// Seconds since 1970 at `system_time`.
        0 "secs" => secs: u64,
        /// And nanoseconds.
        8 "nsecs" => nsecs: u32,
        /// Must be zero.
        12 "mbz" => mbz: u32,
        /// System time in ns.
        16 "system_time" => system_time: u64,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[PlatformOp::LAYOUT, SetTime64::LAYOUT];

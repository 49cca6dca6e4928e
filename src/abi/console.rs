//! Console operations and the console ring (xen/include/public/xen.h, io/console.h).

use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// Writes to the hypervisor's console.
    OP_WRITE: u32 = 0, "CONSOLEIO_write";
    /// Reads from the hypervisor's console.
    OP_READ: u32 = 1, "CONSOLEIO_read";
}

abi_struct! {
    /// The page that a guest and its console's backend share.
    pub struct XenconsInterface: "struct xencons_interface", 3088, align 4 {
        /// Characters for the guest.
        0 "in" => input: [u8; 1024],
        /// Characters from the guest.
        1024 "out" => output: [u8; 2048],
        /// Read by the guest.
        3072 "in_cons" => in_cons: u32,
        /// Written by the backend.
        3076 "in_prod" => in_prod: u32,
        /// Read by the backend.
        3080 "out_cons" => out_cons: u32,
        /// Written by the guest.
        3084 "out_prod" => out_prod: u32,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[XenconsInterface::LAYOUT];

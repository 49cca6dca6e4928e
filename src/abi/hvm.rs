//! HVM operations and parameters (xen/include/public/hvm/{hvm_op,params}.h).

use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// Sets a parameter.
    OP_SET_PARAM: u32 = 0, "HVMOP_set_param";
    /// Reads a parameter.
    OP_GET_PARAM: u32 = 1, "HVMOP_get_param";
    /// Notifies a monitor; there is none.
    OP_GUEST_REQUEST_VM_EVENT: u32 = 24, "HVMOP_guest_request_vm_event";

    /// Interrupt that signals events.
    PARAM_CALLBACK_IRQ: u32 = 0, "HVM_PARAM_CALLBACK_IRQ";
    /// Frame of the xenstore ring.
    PARAM_STORE_PFN: u32 = 1, "HVM_PARAM_STORE_PFN";
    /// Port of the xenstore ring.
    PARAM_STORE_EVTCHN: u32 = 2, "HVM_PARAM_STORE_EVTCHN";
    /// Frame of the console ring.
    PARAM_CONSOLE_PFN: u32 = 17, "HVM_PARAM_CONSOLE_PFN";
    /// Port of the console ring.
    PARAM_CONSOLE_EVTCHN: u32 = 18, "HVM_PARAM_CONSOLE_EVTCHN";
    /// Frame of the monitor ring.
    PARAM_MONITOR_RING_PFN: u32 = 28, "HVM_PARAM_MONITOR_RING_PFN";
    /// One past the highest parameter.
    NR_PARAMS: u32 = 39, "HVM_NR_PARAMS";

    /// Value of bits 63:56 of [`PARAM_CALLBACK_IRQ`]: bits 7:0 name a PPI.
    CALLBACK_TYPE_PPI: u32 = 2, "HVM_PARAM_CALLBACK_TYPE_PPI";
    /// Bits 15:8 of [`PARAM_CALLBACK_IRQ`].
    CALLBACK_PPI_FLAG_MASK: u32 = 0xFF00, "HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_MASK";
    /// In bits 15:8: the interrupt is active low.
    CALLBACK_PPI_FLAG_LOW_LEVEL: u32 = 2, "HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_LOW_LEVEL";
}

abi_struct! {
    /// Argument of `set_param` and `get_param`.
    pub struct HvmParam: "struct xen_hvm_param", 16, align 8 {
        /// The domain.
        0 "domid" => domid: u16,
        /// Unused.
        2 "pad" => pad: u16,
        /// `PARAM_*`.
        4 "index" => index: u32,
        /// In or out.
        8 "value" => value: u64,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[HvmParam::LAYOUT];

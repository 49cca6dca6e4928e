//! The hypervisor's options from the command line.

use spin::Once;

use crate::cmdline::Options;
use crate::domain::Domain;

static OPTIONS: Once<Options> = Once::new();

/// Sets the options. Only the first call has an effect.
pub fn set(options: Options) -> &'static Options {
    OPTIONS.call_once(|| options)
}

/// Returns the options; `None` before boot has read them.
pub fn get() -> Option<&'static Options> {
    OPTIONS.get()
}

/// Returns the largest extent order that `domain` may use in a memory operation.
pub fn memop_max_order(domain: &Domain) -> u32 {
    let orders = OPTIONS.get().map_or_else(
        || Options::default().memop_max_order,
        |options| options.memop_max_order,
    );
    let mut order = orders.guest;
    if domain.is_control() {
        order = order.max(orders.control);
    }
    if domain.rights.hardware {
        order = order.max(orders.hardware);
    }
    order.into()
}

//! Reads of memory that may not exist.

/// Reads the word at hypervisor address `va`. Returns `None` if the access aborts.
///
/// For boot, on the boot CPU: firmware may describe memory that does not exist.
pub fn read(va: usize) -> Option<u32> {
    unsafe extern "C" {
        fn probe_read(address: usize, value: *mut u32) -> u32;
    }
    let mut value = 0;
    // SAFETY: an abort of the one load is caught by `hyp_fault_report`; the store goes to a local.
    (unsafe { probe_read(va, &mut value) } != 0).then_some(value)
}

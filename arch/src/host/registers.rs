//! The registers of this CPU, for tests to set and read.

use crate::cp15;

pub use super::cells::exception_return;

/// Registers of a trap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trap {
    /// HSR.
    pub syndrome: u32,
    /// HDFAR and HIFAR.
    pub address: u32,
    /// Page number of a stage-2 fault (HPFAR).
    pub page: u32,
}

/// Sets this CPU's trap registers.
pub fn set_trap(trap: &Trap) {
    // SAFETY: cells of a host thread.
    unsafe {
        cp15::Hsr::write(trap.syndrome);
        cp15::Hdfar::write(trap.address);
        cp15::Hifar::write(trap.address);
        cp15::Hpfar::write(trap.page << 4);
    }
}

/// Sets the registers of the guest on this CPU that affect how it takes exceptions.
pub fn set_guest(sctlr: u32, vbar: u32, ttbcr: u32) {
    // SAFETY: cells of a host thread.
    unsafe {
        cp15::Sctlr::write(sctlr);
        cp15::Vbar::write(vbar);
        cp15::Ttbcr::write(ttbcr);
    }
}

/// Sets the result of every translation by the guest's stage 1 (PAR, DDI 0406C.d B4.1.112).
pub fn set_translation(par: u64) {
    // SAFETY: a cell of a host thread.
    unsafe { cp15::Par::write(par) }
}

/// Sets the guest's ACTLR.
pub fn set_actlr(value: u32) {
    // SAFETY: a cell of a host thread.
    unsafe { cp15::Actlr::write(value) }
}

/// Sets the version of this CPU's performance monitors (`ID_DFR0[27:24]`).
pub fn set_monitors(version: u32) {
    // SAFETY: a cell of a host thread.
    unsafe { cp15::IdDfr0::write(version << 24) }
}

/// Sets whether an asynchronous abort is pending on this CPU.
pub fn set_async_abort(pending: bool) {
    // SAFETY: a cell of a host thread.
    unsafe { cp15::Isr::write(u32::from(pending) << 8) }
}

/// Sets whether an interrupt is pending on this CPU.
pub fn set_interrupt(waits: bool) {
    // SAFETY: a cell of a host thread.
    unsafe { cp15::Isr::write(u32::from(waits) << 7) }
}

/// Returns the guest's fault registers: DFSR, DFAR, IFSR, IFAR.
pub fn faults() -> [u32; 4] {
    [
        cp15::Dfsr::read(),
        cp15::Dfar::read(),
        cp15::Ifsr::read(),
        cp15::Ifar::read(),
    ]
}

#[cfg(test)]
mod tests {
    use crate::cp15;

    #[test]
    fn registers_do_not_share_cells() {
        // SAFETY: cells of a host thread.
        unsafe {
            cp15::Hcr::write(1);
            cp15::Hdcr::write(2);
            cp15::Sctlr::write(3);
            cp15::Vttbr::write(4);
            cp15::Cntvoff::write(5);
        }
        let narrow = [cp15::Hcr::read(), cp15::Hdcr::read(), cp15::Sctlr::read()];
        assert_eq!(narrow, [1, 2, 3]);
        assert_eq!((cp15::Vttbr::read(), cp15::Cntvoff::read()), (4, 5));
        let elsewhere = std::thread::spawn(cp15::Hcr::read);
        assert_eq!(elsewhere.join().ok(), Some(0));
    }
}

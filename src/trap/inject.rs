//! Exceptions injected into a guest: the state in which the guest's handler starts.
//!
//! `inject` is pure, from registers to registers; `raise` writes its result into the loaded guest. An injected
//! exception must match one taken by the CPU (XSA-103; DDI 0406C.d B1.8.3 and B1.9): mode, masks, return address,
//! vector, fault registers. The trapped instruction is *not* skipped after an injection.
//!
//! Aborts are reported as synchronous external aborts, as a bus reports an address without a device. Linux sends SIGBUS
//! for them, and KVM does the same. Xen 4.17 reports a debug event (status 0x22), which Linux first passes to its
//! hardware breakpoint code. Xen also omits the offset in the return address, which the architecture requires.

use armv7::guest::{self, GuestContext};
use armv7::syndrome::{MemoryDirection, length, next_instruction, psr};

/// The guest state an injection depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupted {
    /// Address of the trapped instruction.
    pub pc: u32,
    /// CPSR when it trapped.
    pub cpsr: u32,
    /// System control register.
    pub sctlr: u32,
    /// Vector base address register.
    pub vbar: u32,
    /// Translation table base control register.
    pub ttbcr: u32,
}

/// An exception to inject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exception {
    /// The instruction is undefined.
    Undefined,
    /// The instruction could not be fetched from `address`.
    PrefetchAbort {
        /// Faulting virtual address.
        address: u32,
    },
    /// The data at `address` could not be accessed.
    DataAbort {
        /// Faulting virtual address.
        address: u32,
        /// The direction of the access.
        direction: MemoryDirection,
    },
}

/// Mode whose banked LR and SPSR the exception writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Undefined mode.
    Undefined,
    /// Abort mode.
    Abort,
}

/// Fault registers that the exception writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultRegisters {
    /// No fault registers.
    None,
    /// Instruction fault status and address.
    Instruction {
        /// IFSR.
        ifsr: u32,
        /// IFAR.
        ifar: u32,
    },
    /// Data fault status and address.
    Data {
        /// DFSR.
        dfsr: u32,
        /// DFAR.
        dfar: u32,
    },
}

/// The guest's state at the first instruction of its handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    /// New PC (ELR_hyp): the vector.
    pub pc: u32,
    /// New CPSR (SPSR_hyp).
    pub cpsr: u32,
    /// Mode of the banked registers that follow.
    pub mode: Mode,
    /// LR of that mode: the preferred return address plus its offset.
    pub lr: u32,
    /// SPSR of that mode: the interrupted CPSR.
    pub spsr: u32,
    /// Fault registers.
    pub fault: FaultRegisters,
}

impl Injection {
    /// Returns whether the guest would not advance: it could not run the first instruction of its handler, and would
    /// take the same exception forever.
    pub const fn repeats(&self, guest: &Interrupted) -> bool {
        self.pc == guest.pc && self.cpsr == guest.cpsr
    }
}

/// SCTLR.V: vectors at 0xFFFF0000 (DDI 0406C.d B4.1.130).
const SCTLR_V: u32 = 1 << 13;
/// SCTLR.EE: exceptions start big-endian.
const SCTLR_EE: u32 = 1 << 25;
/// SCTLR.TE: exceptions start in Thumb state.
const SCTLR_TE: u32 = 1 << 30;
/// TTBCR.EAE: long descriptors, and with them the long format of the fault status.
const TTBCR_EAE: u32 = 1 << 31;
/// High vectors.
const HIVECS: u32 = 0xFFFF_0000;
/// VBAR bits 4:0 are reserved (DDI 0406C.d B4.1.156).
const VBAR_MASK: u32 = !0x1F;

/// DFSR.WnR: a write (DDI 0406C.d B4.1.51).
const FSR_WRITE: u32 = 1 << 11;
/// Fault status: long-descriptor format, synchronous external abort (DDI 0406C.d table B3-24).
const FSR_EXTERNAL_LONG: u32 = 1 << 9 | 0x10;
/// Fault status: short-descriptor format, synchronous external abort (DDI 0406C.d table B3-23).
const FSR_EXTERNAL_SHORT: u32 = 0x08;

/// CPSR bits that an exception keeps: flags, Q, GE, F, and A and I, which are only ever set.
const CPSR_KEPT: u32 = !(psr::MODE | psr::T | psr::J | psr::E | psr::IT_HIGH | psr::IT_LOW);

/// Returns the state in which the guest takes `exception`.
pub const fn inject(guest: &Interrupted, exception: Exception) -> Injection {
    let (mode, mode_bits, vector, masks, offset) = match exception {
        // B1.9.6 (TakeUndefInstrException): A is unchanged, LR depends on the instruction set.
        Exception::Undefined if guest.cpsr & psr::T != 0 => {
            (Mode::Undefined, psr::MODE_UND, 0x04, psr::I, 2)
        }
        Exception::Undefined => (Mode::Undefined, psr::MODE_UND, 0x04, psr::I, 4),
        // B1.9.9 (TakePrefetchAbortException) and B1.9.10 (TakeDataAbortException): the same in ARM and Thumb state.
        Exception::PrefetchAbort { .. } => (Mode::Abort, psr::MODE_ABT, 0x0C, psr::A | psr::I, 4),
        Exception::DataAbort { .. } => (Mode::Abort, psr::MODE_ABT, 0x10, psr::A | psr::I, 8),
    };
    let base = if guest.sctlr & SCTLR_V != 0 {
        HIVECS
    } else {
        guest.vbar & VBAR_MASK
    };
    let thumb = if guest.sctlr & SCTLR_TE != 0 {
        psr::T
    } else {
        0
    };
    let big_endian = if guest.sctlr & SCTLR_EE != 0 {
        psr::E
    } else {
        0
    };
    let status = if guest.ttbcr & TTBCR_EAE != 0 {
        FSR_EXTERNAL_LONG
    } else {
        FSR_EXTERNAL_SHORT
    };
    let fault = match exception {
        Exception::Undefined => FaultRegisters::None,
        Exception::PrefetchAbort { address } => FaultRegisters::Instruction {
            ifsr: status,
            ifar: address,
        },
        Exception::DataAbort { address, direction } => FaultRegisters::Data {
            dfsr: match direction {
                MemoryDirection::Read => status,
                MemoryDirection::Write => status | FSR_WRITE,
            },
            dfar: address,
        },
    };
    Injection {
        pc: base | vector,
        cpsr: guest.cpsr & CPSR_KEPT | mode_bits | masks | thumb | big_endian,
        mode,
        lr: guest.pc.wrapping_add(offset),
        spsr: guest.cpsr,
        fault,
    }
}

/// Skips the trapped instruction, of syndrome `hsr`.
pub(super) fn skip(context: &mut GuestContext, hsr: u32) {
    (context.pc, context.cpsr) = next_instruction(context.pc, context.cpsr, length(hsr));
}

/// Makes the loaded guest take an exception, unless it would repeat forever as the handler cannot run. Returns whether
/// it was raised.
pub(super) fn raise_unless_endless(context: &mut GuestContext, exception: Exception) -> bool {
    let interrupted = interrupted(context);
    let injection = inject(&interrupted, exception);
    let endless = injection.repeats(&interrupted);
    if !endless {
        enter(context, &injection);
    }
    !endless
}

fn interrupted(context: &GuestContext) -> Interrupted {
    let registers = guest::ExceptionState::read();
    Interrupted {
        pc: context.pc,
        cpsr: context.cpsr,
        sctlr: registers.sctlr,
        vbar: registers.vbar,
        ttbcr: registers.ttbcr,
    }
}

/// Makes the loaded guest take an exception.
pub(super) fn raise(context: &mut GuestContext, exception: Exception) {
    let injection = inject(&interrupted(context), exception);
    enter(context, &injection);
}

fn enter(context: &mut GuestContext, injection: &Injection) {
    let mode = match injection.mode {
        Mode::Undefined => psr::MODE_UND,
        Mode::Abort => psr::MODE_ABT,
    };
    guest::set_exception_return(mode, injection.lr, injection.spsr);
    match injection.fault {
        FaultRegisters::None => {}
        FaultRegisters::Instruction { ifsr, ifar } => guest::set_fetch_fault(ifsr, ifar),
        FaultRegisters::Data { dfsr, dfar } => guest::set_data_fault(dfsr, dfar),
    }
    context.pc = injection.pc;
    context.cpsr = injection.cpsr;
}

#[cfg(test)]
mod tests {
    use armv7::syndrome::{MemoryDirection, psr};
    use proptest::prelude::{any, proptest};

    use super::{
        Exception, FaultRegisters, Interrupted, Mode, SCTLR_EE, SCTLR_TE, SCTLR_V, TTBCR_EAE,
        inject,
    };

    const USER: Interrupted = Interrupted {
        pc: 0x0001_0000,
        cpsr: psr::MODE_USR | psr::Z | psr::F,
        sctlr: 0,
        vbar: 0x4000_0000,
        ttbcr: TTBCR_EAE,
    };

    const READ: Exception = Exception::DataAbort {
        address: 0xDEAD_BEEC,
        direction: MemoryDirection::Read,
    };
    const WRITE: Exception = Exception::DataAbort {
        address: 0xDEAD_BEEC,
        direction: MemoryDirection::Write,
    };
    const FETCH: Exception = Exception::PrefetchAbort {
        address: 0x0001_0000,
    };

    #[test]
    fn an_undefined_instruction_returns_behind_itself() {
        let arm = inject(&USER, Exception::Undefined);
        assert_eq!(
            (arm.lr, arm.pc, arm.mode),
            (0x0001_0004, 0x4000_0004, Mode::Undefined)
        );
        assert_eq!(arm.spsr, USER.cpsr);
        assert_eq!(
            arm.cpsr,
            psr::MODE_UND | psr::Z | psr::F | psr::I,
            "A is left alone"
        );
        assert_eq!(arm.fault, FaultRegisters::None);
        let thumb = inject(
            &Interrupted {
                cpsr: USER.cpsr | psr::T,
                ..USER
            },
            Exception::Undefined,
        );
        assert_eq!(thumb.lr, 0x0001_0002);
    }

    #[test]
    fn aborts_return_8_and_4_further_in_both_instruction_sets() {
        for state in [0, psr::T] {
            let guest = Interrupted {
                cpsr: USER.cpsr | state,
                ..USER
            };
            let data = inject(&guest, READ);
            assert_eq!(
                (data.lr, data.pc, data.mode),
                (0x0001_0008, 0x4000_0010, Mode::Abort)
            );
            let fetch = inject(&guest, FETCH);
            assert_eq!(
                (fetch.lr, fetch.pc, fetch.mode),
                (0x0001_0004, 0x4000_000C, Mode::Abort)
            );
            assert_eq!(data.cpsr, psr::MODE_ABT | psr::Z | psr::F | psr::A | psr::I);
        }
    }

    #[test]
    fn the_fault_status_follows_the_table_format() {
        let short = Interrupted { ttbcr: 0, ..USER };
        assert_eq!(
            inject(&USER, READ).fault,
            FaultRegisters::Data {
                dfsr: 0x210,
                dfar: 0xDEAD_BEEC
            }
        );
        assert_eq!(
            inject(&USER, WRITE).fault,
            FaultRegisters::Data {
                dfsr: 0xA10,
                dfar: 0xDEAD_BEEC
            }
        );
        assert_eq!(
            inject(&short, READ).fault,
            FaultRegisters::Data {
                dfsr: 0x008,
                dfar: 0xDEAD_BEEC
            }
        );
        assert_eq!(
            inject(&short, WRITE).fault,
            FaultRegisters::Data {
                dfsr: 0x808,
                dfar: 0xDEAD_BEEC
            }
        );
        assert_eq!(
            inject(&USER, FETCH).fault,
            FaultRegisters::Instruction {
                ifsr: 0x210,
                ifar: 0x0001_0000
            }
        );
        assert_eq!(
            inject(&short, FETCH).fault,
            FaultRegisters::Instruction {
                ifsr: 0x008,
                ifar: 0x0001_0000
            }
        );
    }

    #[test]
    fn the_vector_is_where_the_guest_put_it() {
        let high = Interrupted {
            sctlr: SCTLR_V,
            ..USER
        };
        assert_eq!(inject(&high, READ).pc, 0xFFFF_0010);
        let odd = Interrupted {
            vbar: 0x8000_003F,
            ..USER
        };
        assert_eq!(inject(&odd, Exception::Undefined).pc, 0x8000_0024);
    }

    #[test]
    fn the_handler_starts_in_the_instruction_set_and_endianness_of_sctlr() {
        let it_block = psr::T | psr::J | psr::E | psr::IT_LOW | psr::IT_HIGH;
        let guest = Interrupted {
            cpsr: USER.cpsr | it_block,
            ..USER
        };
        assert_eq!(inject(&guest, READ).cpsr & it_block, 0);
        assert_eq!(inject(&guest, READ).spsr, guest.cpsr);
        let both = Interrupted {
            sctlr: SCTLR_TE | SCTLR_EE,
            ..guest
        };
        assert_eq!(inject(&both, READ).cpsr & it_block, psr::T | psr::E);
    }

    #[test]
    fn a_handler_that_cannot_be_run_is_an_exception_for_ever() {
        let elsewhere = inject(&USER, FETCH);
        assert!(!elsewhere.repeats(&USER));
        let at_handler = Interrupted {
            pc: elsewhere.pc,
            cpsr: elsewhere.cpsr,
            ..USER
        };
        let fetch = |guest| inject(guest, Exception::PrefetchAbort { address: guest.pc });
        assert!(fetch(&at_handler).repeats(&at_handler));
        assert!(!inject(&at_handler, READ).repeats(&at_handler));
        // Got there by a jump, it takes the exception once.
        let jumped = Interrupted {
            cpsr: psr::MODE_SVC | psr::A | psr::I,
            ..at_handler
        };
        assert!(!fetch(&jumped).repeats(&jumped));
    }

    #[test]
    fn return_addresses_wrap_at_the_end_of_memory() {
        let guest = Interrupted {
            pc: 0xFFFF_FFFC,
            ..USER
        };
        assert_eq!(inject(&guest, READ).lr, 4);
    }

    proptest! {
        #[test]
        fn no_state_leads_to_a_mode_above_the_guest(pc in any::<u32>(), cpsr in any::<u32>(), sctlr in any::<u32>()) {
            let guest = Interrupted { pc, cpsr, sctlr, vbar: 0, ttbcr: 0 };
            for exception in [Exception::Undefined, READ, FETCH] {
                let new = inject(&guest, exception);
                assert!(matches!(new.cpsr & psr::MODE, psr::MODE_ABT | psr::MODE_UND));
                assert_eq!(new.cpsr & psr::I, psr::I);
                assert_eq!(new.cpsr & 0xF80F_0000, cpsr & 0xF80F_0000, "flags");
                assert_eq!(new.cpsr & psr::F, cpsr & psr::F);
            }
        }
    }
}

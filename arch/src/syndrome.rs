//! Decoding of traps: the Hyp Syndrome Register as an enum (DDI 0406C.d B3.13.6, B4.1.90).
//!
//! Pure functions of numbers. Bits that the architecture defines as UNK/SBZP are ignored, and every 32-bit value
//! decodes to a variant, so no processor or emulator bug can stop the hypervisor here.
//!
//! A trap of a *conditional* instruction may be taken although its condition fails. Before acting on one, check
//! [`condition_passed`]; if it is false, only skip the instruction ([`next_instruction`]). HVC and SVC are taken only
//! if their condition holds, and their saved PC is already past them, unlike all other classes here. On ARMv7 an SMC
//! traps only if its condition holds, and its saved PC is the SMC itself.

/// A decoded syndrome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// Undefined instruction in Hyp mode, illegal return, or a trap without its own class (EC 0x00).
    Unknown,
    /// WFI or WFE, trapped by HCR.TWI or HCR.TWE.
    Wait(Wait),
    /// MCR or MRC to CP15.
    Cp15(CpAccess),
    /// MCRR or MRRC to CP15.
    Cp15Wide(CpWideAccess),
    /// MCR or MRC to CP14 (debug, trace, ThumbEE, Jazelle).
    Cp14(CpAccess),
    /// MCRR or MRRC to CP14.
    Cp14Wide(CpWideAccess),
    /// LDC or STC to CP14.
    Cp14LoadStore,
    /// A coprocessor or SIMD access trapped by HCPTR.
    Hcptr(HcptrAccess),
    /// MRC or VMRS of an identification register of CP10, trapped by HCR.TID0 or TID3.
    Cp10(CpAccess),
    /// BXJ, trapped by HSTR.TJDBX.
    Jazelle,
    /// SVC with HCR.TGE set, or in Hyp mode.
    Svc(u16),
    /// HVC with its immediate.
    Hvc(u16),
    /// SMC, trapped by HCR.TSC.
    Smc,
    /// A guest's instruction fetch failed in stage 2, or a prefetch abort was routed to Hyp mode.
    InstrAbort(InstrAbort),
    /// A guest's data access failed in stage 2, or a data abort was routed to Hyp mode.
    DataAbort(DataAbort),
    /// The hypervisor's own instruction fetch failed.
    HypInstrAbort(InstrAbort),
    /// The hypervisor's own data access failed.
    HypDataAbort(DataAbort),
    /// An exception class this architecture version does not define.
    Reserved(u8),
}

/// Instruction that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// WFI: until an interrupt.
    Interrupt,
    /// WFE: until an event.
    Event,
}

/// Direction of a coprocessor access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The coprocessor is written (MCR, MCRR, STC).
    Write,
    /// The coprocessor is read (MRC, MRRC, LDC).
    Read,
}

/// A trapped MCR or MRC. Two with equal fields except `rt` and `direction` access the same register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpAccess {
    /// opc1, 0..=7.
    pub opc1: u8,
    /// CRn, 0..=15.
    pub crn: u8,
    /// CRm, 0..=15.
    pub crm: u8,
    /// opc2, 0..=7.
    pub opc2: u8,
    /// Core register, 0..=15; 15 means the flags for an MRC.
    pub rt: u8,
    /// Read or write.
    pub direction: Direction,
}

/// A trapped MCRR or MRRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpWideAccess {
    /// opc1, 0..=15.
    pub opc1: u8,
    /// CRm, 0..=15.
    pub crm: u8,
    /// Core register of bits 31:0.
    pub rt: u8,
    /// Core register of bits 63:32.
    pub rt2: u8,
    /// Read or write.
    pub direction: Direction,
}

/// An access trapped by HCPTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HcptrAccess {
    /// An access to this coprocessor, 0..=13.
    Coprocessor(u8),
    /// An Advanced SIMD instruction, trapped by HCPTR.TASE.
    Simd,
}

/// A failed instruction fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstrAbort {
    /// Kind of fault.
    pub fault: FaultKind,
    /// Stage 2 of the guest's own table walk failed, not the fetch.
    pub s1ptw: bool,
    /// IMPLEMENTATION DEFINED class of an external abort.
    pub ea: bool,
}

/// A failed data access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(4))] // so that it is moved as words
pub struct DataAbort {
    /// The instruction, if it loads or stores one register without write-back (ISV); otherwise it must be fetched.
    pub access: Option<DataAccess>,
    /// The direction of the access. Cache maintenance counts as a write.
    pub direction: MemoryDirection,
    /// Kind of fault.
    pub fault: FaultKind,
    /// Stage 2 of the guest's own table walk failed, not the access.
    pub s1ptw: bool,
    /// The access was a cache maintenance operation or an address translation.
    pub cache_maintenance: bool,
    /// IMPLEMENTATION DEFINED class of an external abort.
    pub ea: bool,
}

/// Direction of a memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryDirection {
    /// A load.
    Read,
    /// A store.
    Write,
}

/// The load or store that aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataAccess {
    /// Bytes moved.
    pub width: Width,
    /// Extension of a loaded value.
    pub extend: Extend,
    /// Core register loaded or stored, 0..=14.
    pub rt: u8,
}

/// Size of a memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
}

impl Width {
    /// Returns the size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

/// Extension of a narrow load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    /// Zero extension.
    Zero,
    /// Sign extension.
    Sign,
}

impl DataAccess {
    /// Returns `hsr` with this access in place of its own.
    pub const fn described_in(self, hsr: u32) -> u32 {
        const ACCESS: u32 = 3 << 22 | 1 << 21 | 0xF << 16;
        let width = match self.width {
            Width::Byte => 0,
            Width::Half => 1,
            Width::Word => 2,
        };
        let extend = matches!(self.extend, Extend::Sign) as u32;
        hsr & !ACCESS | 1 << 24 | width << 22 | extend << 21 | (self.rt as u32 & 0xF) << 16
    }

    /// Returns the register value after a load of `raw`.
    pub const fn extend(self, raw: u32) -> u32 {
        match (self.width, self.extend) {
            (Width::Byte, Extend::Zero) => raw as u8 as u32,
            (Width::Byte, Extend::Sign) => raw as u8 as i8 as u32,
            (Width::Half, Extend::Zero) => raw as u16 as u32,
            (Width::Half, Extend::Sign) => raw as u16 as i16 as u32,
            (Width::Word, _) => raw,
        }
    }
}

/// A fault status code, as encoded in the long-descriptor format (DDI 0406C.d B3.13.3, table B3-24).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// No valid entry at this level of the tables, 1..=3.
    Translation(u8),
    /// Access flag clear at this level.
    AccessFlag(u8),
    /// Not permitted by the entry at this level.
    Permission(u8),
    /// Synchronous external abort of the access itself.
    External,
    /// Synchronous external abort of a table walk at this level.
    ExternalOnWalk(u8),
    /// Asynchronous external abort; the address registers are not valid.
    AsyncExternal,
    /// Synchronous parity error of the access itself.
    Parity,
    /// Asynchronous parity error.
    AsyncParity,
    /// Synchronous parity error of a table walk at this level.
    ParityOnWalk(u8),
    /// Misaligned address.
    Alignment,
    /// Debug event.
    Debug,
    /// Two TLB entries match.
    TlbConflict,
    /// Reserved or IMPLEMENTATION DEFINED status.
    Other(u8),
}

impl FaultKind {
    const fn from_status(status: u32) -> Self {
        let level = (status & 3) as u8;
        match status >> 2 & 0xF {
            0b0001 if level != 0 => Self::Translation(level),
            0b0010 if level != 0 => Self::AccessFlag(level),
            0b0011 if level != 0 => Self::Permission(level),
            0b0101 if level != 0 => Self::ExternalOnWalk(level),
            0b0111 if level != 0 => Self::ParityOnWalk(level),
            _ => match status & 0x3F {
                0b01_0000 => Self::External,
                0b01_0001 => Self::AsyncExternal,
                0b01_1000 => Self::Parity,
                0b01_1001 => Self::AsyncParity,
                0b10_0001 => Self::Alignment,
                0b10_0010 => Self::Debug,
                0b11_0000 => Self::TlbConflict,
                other => Self::Other(other as u8),
            },
        }
    }

    /// Returns whether it was reported after the access that caused it, which is then unknown.
    pub const fn is_asynchronous(self) -> bool {
        matches!(self, Self::AsyncExternal | Self::AsyncParity)
    }

    /// Returns whether the memory system refused the access or its table walk, synchronously.
    pub const fn is_synchronous_external(self) -> bool {
        matches!(
            self,
            Self::External | Self::ExternalOnWalk(_) | Self::Parity | Self::ParityOnWalk(_)
        )
    }

    /// Returns whether stage 2 raised it for a missing or restricted entry. Only these kinds can be resolved by
    /// emulation or by a p2m change.
    pub const fn is_stage2_map(self) -> bool {
        matches!(
            self,
            Self::Translation(_) | Self::AccessFlag(_) | Self::Permission(_)
        )
    }
}

/// Condition under which the trapped instruction executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The class is not conditional.
    Always,
    /// The syndrome holds the condition field.
    Code(u8),
    /// Thumb: the IT state of the saved CPSR decides.
    FromItState,
}

/// Length of the trapped instruction (IL).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
}

/// Bits of CPSR and SPSR (DDI 0406C.d B1.3.3).
pub mod psr {
    /// Negative.
    pub const N: u32 = 1 << 31;
    /// Zero.
    pub const Z: u32 = 1 << 30;
    /// Carry.
    pub const C: u32 = 1 << 29;
    /// Overflow.
    pub const V: u32 = 1 << 28;
    /// `IT[1:0]`.
    pub const IT_LOW: u32 = 3 << 25;
    /// Jazelle / ThumbEE.
    pub const J: u32 = 1 << 24;
    /// `IT[7:2]`.
    pub const IT_HIGH: u32 = 0x3F << 10;
    /// Data endianness.
    pub const E: u32 = 1 << 9;
    /// Asynchronous aborts masked.
    pub const A: u32 = 1 << 8;
    /// IRQ masked.
    pub const I: u32 = 1 << 7;
    /// FIQ masked.
    pub const F: u32 = 1 << 6;
    /// Thumb.
    pub const T: u32 = 1 << 5;
    /// Mode field.
    pub const MODE: u32 = 0x1F;
    /// User mode.
    pub const MODE_USR: u32 = 0x10;
    /// FIQ mode.
    pub const MODE_FIQ: u32 = 0x11;
    /// IRQ mode.
    pub const MODE_IRQ: u32 = 0x12;
    /// Supervisor mode.
    pub const MODE_SVC: u32 = 0x13;
    /// Abort mode.
    pub const MODE_ABT: u32 = 0x17;
    /// Hyp mode.
    pub const MODE_HYP: u32 = 0x1A;
    /// Undefined mode.
    pub const MODE_UND: u32 = 0x1B;
    /// System mode.
    pub const MODE_SYS: u32 = 0x1F;
}

/// Decodes exception class and instruction-specific syndrome of `hsr`.
pub const fn decode(hsr: u32) -> Trap {
    match hsr >> 26 {
        0x00 => Trap::Unknown,
        0x01 => Trap::Wait(if hsr & 1 == 0 {
            Wait::Interrupt
        } else {
            Wait::Event
        }),
        0x03 => Trap::Cp15(cp_access(hsr)),
        0x04 => Trap::Cp15Wide(cp_wide_access(hsr)),
        0x05 => Trap::Cp14(cp_access(hsr)),
        0x06 => Trap::Cp14LoadStore,
        0x07 if hsr & 1 << 5 != 0 => Trap::Hcptr(HcptrAccess::Simd),
        0x07 => Trap::Hcptr(HcptrAccess::Coprocessor((hsr & 0xF) as u8)),
        0x08 => Trap::Cp10(cp_access(hsr)),
        0x09 => Trap::Jazelle,
        0x0C => Trap::Cp14Wide(cp_wide_access(hsr)),
        0x11 => Trap::Svc(hsr as u16),
        HVC => Trap::Hvc(hsr as u16),
        0x13 => Trap::Smc,
        0x20 => Trap::InstrAbort(instr_abort(hsr)),
        0x21 => Trap::HypInstrAbort(instr_abort(hsr)),
        DATA_ABORT => Trap::DataAbort(data_abort(hsr)),
        0x25 => Trap::HypDataAbort(data_abort(hsr)),
        class => Trap::Reserved(class as u8),
    }
}

/// Returns the condition of the instruction that caused `hsr`. Only classes below 0x10 are conditional.
pub const fn condition(hsr: u32) -> Condition {
    let class = hsr >> 26;
    if class == 0 || class >= 0x10 {
        Condition::Always
    } else if hsr & 1 << 24 != 0 {
        Condition::Code((hsr >> 20 & 0xF) as u8)
    } else {
        Condition::FromItState
    }
}

/// Returns the length of the instruction that caused `hsr`. Not valid for class 0, prefetch aborts, and data aborts without
/// [`DataAbort::access`].
pub const fn length(hsr: u32) -> Length {
    if hsr & 1 << 25 != 0 {
        Length::Word
    } else {
        Length::Half
    }
}

/// Returns whether an instruction under `condition` executes with the flags (and IT state) of the saved `cpsr`
/// (DDI 0406C.d A8.3, `ConditionPassed`).
pub const fn condition_passed(condition: Condition, cpsr: u32) -> bool {
    let code = match condition {
        Condition::Always => return true,
        Condition::Code(code) => code as u32 & 0xF,
        Condition::FromItState => {
            let it = it_state(cpsr);
            // ARM state without a condition field does not occur; outside an IT block Thumb is unconditional.
            if cpsr & psr::T == 0 || it & 0xF == 0 {
                return true;
            }
            it >> 4
        }
    };
    let (n, z) = (cpsr & psr::N != 0, cpsr & psr::Z != 0);
    let (c, v) = (cpsr & psr::C != 0, cpsr & psr::V != 0);
    let base = match code >> 1 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        // 0b1110 is "always"; 0b1111 marks unconditional instructions and is not inverted.
        _ => return true,
    };
    base != (code & 1 == 1)
}

/// Returns PC and CPSR after skipping the instruction at `pc`, with the IT state advanced (DDI 0406C.d A2.5.2).
pub const fn next_instruction(pc: u32, cpsr: u32, length: Length) -> (u32, u32) {
    if cpsr & psr::T == 0 {
        return (pc.wrapping_add(4), cpsr);
    }
    let step = match length {
        Length::Half => 2,
        Length::Word => 4,
    };
    (pc.wrapping_add(step), advance_it(cpsr))
}

/// Returns `IT[7:0]` of a CPSR.
pub const fn it_state(cpsr: u32) -> u32 {
    (cpsr & psr::IT_HIGH) >> 8 | (cpsr & psr::IT_LOW) >> 25
}

/// Advances the IT state: `ITAdvance()` of DDI 0406C.d A2.5.2.
const fn advance_it(cpsr: u32) -> u32 {
    if cpsr & (psr::IT_HIGH | psr::IT_LOW) == 0 {
        return cpsr;
    }
    let it = it_state(cpsr);
    let next = if it & 7 == 0 {
        0
    } else {
        it & 0xE0 | it << 1 & 0x1F
    };
    cpsr & !(psr::IT_HIGH | psr::IT_LOW) | (next & 0xFC) << 8 | (next & 3) << 25
}

const fn direction(hsr: u32) -> Direction {
    if hsr & 1 == 0 {
        Direction::Write
    } else {
        Direction::Read
    }
}

const fn cp_access(hsr: u32) -> CpAccess {
    CpAccess {
        opc2: (hsr >> 17 & 7) as u8,
        opc1: (hsr >> 14 & 7) as u8,
        crn: (hsr >> 10 & 0xF) as u8,
        rt: (hsr >> 5 & 0xF) as u8,
        crm: (hsr >> 1 & 0xF) as u8,
        direction: direction(hsr),
    }
}

const fn cp_wide_access(hsr: u32) -> CpWideAccess {
    CpWideAccess {
        opc1: (hsr >> 16 & 0xF) as u8,
        rt2: (hsr >> 10 & 0xF) as u8,
        rt: (hsr >> 5 & 0xF) as u8,
        crm: (hsr >> 1 & 0xF) as u8,
        direction: direction(hsr),
    }
}

const fn instr_abort(hsr: u32) -> InstrAbort {
    InstrAbort {
        fault: FaultKind::from_status(hsr & 0x3F),
        s1ptw: hsr & 1 << 7 != 0,
        ea: hsr & 1 << 9 != 0,
    }
}

/// HSR.EC of a data abort of a guest (DDI 0406C.d B3.13.6).
const DATA_ABORT: u32 = 0x24;

/// HSR.EC of an HVC (DDI 0406C.d B3.13.6).
pub const HVC: u32 = 0x12;

/// Returns the immediate if `hsr` is an HVC.
#[inline(always)]
pub const fn hvc(hsr: u32) -> Option<u16> {
    if hsr >> 26 == HVC {
        Some(hsr as u16)
    } else {
        None
    }
}

/// Returns whether `hsr` is a data abort of a guest.
#[inline(always)]
pub const fn is_data_abort(hsr: u32) -> bool {
    hsr >> 26 == DATA_ABORT
}

/// Returns the access and its direction if `hsr` is a guest's data abort by a stage-2 translation fault, not on a table
/// walk, with a valid syndrome. For emulated registers, which are not mapped. HPFAR may be invalid for other faults
/// (DDI 0406C.d B3.13.6).
#[inline(always)]
pub const fn emulated_access(hsr: u32) -> Option<(DataAccess, MemoryDirection)> {
    const STAGE1_WALK: u32 = 1 << 7;
    /// The status code without the level.
    const KIND: u32 = 0b11_1100;
    const TRANSLATION: u32 = 0b00_0100;
    if !is_data_abort(hsr) || hsr & (STAGE1_WALK | KIND) != TRANSLATION {
        return None;
    }
    match data_access(hsr) {
        Some(access) => Some((access, memory_direction(hsr))),
        None => None,
    }
}

const fn memory_direction(hsr: u32) -> MemoryDirection {
    if hsr & 1 << 6 != 0 {
        MemoryDirection::Write
    } else {
        MemoryDirection::Read
    }
}

const fn data_abort(hsr: u32) -> DataAbort {
    DataAbort {
        access: data_access(hsr),
        direction: memory_direction(hsr),
        fault: FaultKind::from_status(hsr & 0x3F),
        s1ptw: hsr & 1 << 7 != 0,
        cache_maintenance: hsr & 1 << 8 != 0,
        ea: hsr & 1 << 9 != 0,
    }
}

#[inline(always)]
const fn data_access(hsr: u32) -> Option<DataAccess> {
    if hsr & 1 << 24 == 0 {
        return None;
    }
    let width = match hsr >> 22 & 3 {
        0 => Width::Byte,
        1 => Width::Half,
        2 => Width::Word,
        _ => return None,
    };
    let rt = (hsr >> 16 & 0xF) as u8;
    // A load to or store of PC never has a valid syndrome (B3.13.6).
    if rt == 15 {
        return None;
    }
    let extend = if hsr & 1 << 21 != 0 {
        Extend::Sign
    } else {
        Extend::Zero
    };
    Some(DataAccess { width, extend, rt })
}

#[cfg(test)]
mod tests;

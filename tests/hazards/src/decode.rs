//! Instructions that concern caches, TLBs and translation (DDI 0406C.d A8.8.43, A8.8.44, A8.8.53, A8.8.98, B3.17).

/// A barrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// Orders accesses.
    Dmb,
    /// Completes stores.
    DsbStores,
    /// Completes accesses and maintenance.
    Dsb,
    /// Synchronizes the context.
    Isb,
}

/// A write of a register of coprocessor 15, or a read that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the architecture names them
pub enum Operation {
    Dccmvac,
    Dcimvac,
    Dccimvac,
    /// To the point of unification, which these processors have at the same level for the model.
    Dccmvau,
    /// By set and way: on this CPU alone, all of it.
    SetWay,
    Iciallu,
    Icialluis,
    Icimvau,
    /// TLBIALL: of the current VMID, on this CPU.
    TlbiGuest,
    /// TLBIALLIS: of the current VMID, on all CPUs.
    TlbiGuestAll,
    /// TLBIMVA and TLBIMVAIS: one page of the current VMID.
    TlbiGuestPage,
    /// TLBIALLH.
    TlbiHyp,
    /// TLBIALLHIS.
    TlbiHypAll,
    /// TLBIMVAH and TLBIMVAHIS.
    TlbiHypPage,
    /// TLBIALLNSNH and TLBIALLNSNHIS: all VMIDs.
    TlbiAllGuests,
    Sctlr,
    Hsctlr,
    Httbr,
    Vttbr,
    /// ATS1C*, ATS12NSO*: a translation into PAR.
    Translate,
    /// A read of PAR.
    ReadPar,
}

/// An instruction that the model follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instruction {
    /// A barrier.
    Barrier(Barrier),
    /// An operation, with the numbers of the registers that hold its value: low half, high half.
    Operation(Operation, u8, Option<u8>),
    /// ERET.
    Eret,
}

const DMB: u32 = 0xF57F_F050;
const DSB: u32 = 0xF57F_F040;
const ISB: u32 = 0xF57F_F060;
const ERET: u32 = 0xE160_006E;

/// STRD, without its registers.
const STRD: u32 = 0x01C0_00F0;

/// Returns the encoding in Arm state of a 32-bit Thumb instruction, first halfword on top, that this module knows; 0 for any
/// other. `condition` is that of its IT block, 14 outside. Coprocessor instructions differ in nothing else.
pub fn of_thumb(word: u32, condition: u32) -> u32 {
    match word {
        0xF3BF_8F40..=0xF3BF_8F6F => 0xF57F_F000 | word & 0xFF,
        0xF3DE_8F00 => ERET,
        _ if word & 0xFC00_0000 == 0xEC00_0000 => word & 0x0FFF_FFFF | condition << 28,
        // P or W is set: neither is an exclusive access.
        _ if word & 0xFE50_0000 == 0xE840_0000 && word & 0x0120_0000 != 0 => STRD | condition << 28,
        _ => 0,
    }
}

/// ITSTATE: the conditions of the instructions to come (DDI 0406C.d A2.5.2).
#[derive(Clone, Copy)]
pub struct ItState(u32);

impl ItState {
    /// Returns the state that CPSR has.
    pub fn of(cpsr: u32) -> Self {
        Self(cpsr >> 8 & 0xFC | cpsr >> 25 & 3)
    }

    /// Returns the condition of the next instruction, of which this is the first halfword, and goes on behind it.
    pub fn next(&mut self, half: u16) -> u32 {
        if half & 0xFF00 == 0xBF00 && half & 0xF != 0 {
            self.0 = u32::from(half & 0xFF);
            return 0xE;
        }
        let condition = if self.0 & 0xF == 0 { 0xE } else { self.0 >> 4 };
        self.0 = if self.0 & 7 == 0 {
            0
        } else {
            self.0 & 0xE0 | self.0 << 1 & 0x1F
        };
        condition
    }
}

/// Returns whether an instruction of Arm state is STRD, which the processor does in one piece where it is aligned, and QEMU
/// in two.
pub fn is_strd(word: u32) -> bool {
    word & 0x0E10_00F0 == 0x0000_00F0
}

/// Decodes an instruction of Arm state.
pub fn decode(word: u32) -> Option<Instruction> {
    match word & 0xFFFF_FFF0 {
        DMB => return Some(Instruction::Barrier(Barrier::Dmb)),
        DSB if word & 3 == 2 => return Some(Instruction::Barrier(Barrier::DsbStores)),
        DSB => return Some(Instruction::Barrier(Barrier::Dsb)),
        ISB => return Some(Instruction::Barrier(Barrier::Isb)),
        _ => {}
    }
    if word == ERET {
        return Some(Instruction::Eret);
    }
    if word >> 28 == 0xF {
        return None;
    }
    let rt = (word >> 12 & 0xF) as u8;
    match word & 0x0FF0_0F00 {
        // MCRR, MRRC.
        0x0C40_0F00 => wide(word, true).map(|op| with(op, rt, word)),
        0x0C50_0F00 => wide(word, false).map(|op| with(op, rt, word)),
        _ if word & 0x0F10_0F10 == 0x0E00_0F10 => {
            narrow(word, true).map(|op| Instruction::Operation(op, rt, None))
        }
        _ if word & 0x0F10_0F10 == 0x0E10_0F10 => {
            narrow(word, false).map(|op| Instruction::Operation(op, rt, None))
        }
        _ => None,
    }
}

fn with(op: Operation, rt: u8, word: u32) -> Instruction {
    Instruction::Operation(op, rt, Some((word >> 16 & 0xF) as u8))
}

fn wide(word: u32, write: bool) -> Option<Operation> {
    match (write, word >> 4 & 0xF, word & 0xF) {
        (true, 4, 2) => Some(Operation::Httbr),
        (true, 6, 2) => Some(Operation::Vttbr),
        (false, 0, 7) => Some(Operation::ReadPar),
        _ => None,
    }
}

fn narrow(word: u32, write: bool) -> Option<Operation> {
    let (op1, crn) = (word >> 21 & 7, word >> 16 & 0xF);
    let (crm, op2) = (word & 0xF, word >> 5 & 7);
    if !write {
        return ((op1, crn, crm, op2) == (0, 7, 4, 0)).then_some(Operation::ReadPar);
    }
    Some(match (op1, crn, crm, op2) {
        (0, 1, 0, 0) => Operation::Sctlr,
        (4, 1, 0, 0) => Operation::Hsctlr,
        (0, 7, 1, 0) => Operation::Icialluis,
        (0, 7, 5, 0) => Operation::Iciallu,
        (0, 7, 5, 1) => Operation::Icimvau,
        (0, 7, 6, 1) => Operation::Dcimvac,
        (0, 7, 10, 1) => Operation::Dccmvac,
        (0, 7, 11, 1) => Operation::Dccmvau,
        (0, 7, 14, 1) => Operation::Dccimvac,
        (0, 7, 6 | 10 | 14, 2) => Operation::SetWay,
        (0 | 4, 7, 8, 0..=7) => Operation::Translate,
        (0, 8, 3, 0) => Operation::TlbiGuestAll,
        (0, 8, 5..=7, 0) => Operation::TlbiGuest,
        (0, 8, 3 | 5..=7, 1..=3) => Operation::TlbiGuestPage,
        (4, 8, 3, 0) => Operation::TlbiHypAll,
        (4, 8, 7, 0) => Operation::TlbiHyp,
        (4, 8, 3 | 7, 1) => Operation::TlbiHypPage,
        (4, 8, 3 | 7, 4) => Operation::TlbiAllGuests,
        _ => return None,
    })
}

/// Returns whether an instruction with condition `condition` (bits 31 to 28) is executed with these flags of CPSR.
pub fn condition_holds(condition: u32, cpsr: u32) -> bool {
    let (n, z, c, v) = (
        cpsr >> 31 & 1 != 0,
        cpsr >> 30 & 1 != 0,
        cpsr >> 29 & 1 != 0,
        cpsr >> 28 & 1 != 0,
    );
    let holds = match condition >> 1 & 7 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => return true,
    };
    holds != (condition & 1 != 0)
}

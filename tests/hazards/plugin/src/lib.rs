//! A TCG plugin: shows the model of `hazards` what the machine does, and writes down what it finds.
//!
//! Arguments: `out=FILE` (reports, one a line: kind, addresses of the place and of the cause, address in memory),
//! `ram=BASE:SIZE`, `guests=off|early|all` (accesses of guests: none, while their caches are off, all),
//! `erratum=none|repeat|fence` (798181), `blind=ADDRESS` (an instruction of the image that the model does not see, as
//! if it were not there; several times).
//!
//! CPUs run on threads of their own (`-accel tcg,thread=multi`; on one thread QEMU 10.0 numbers them wrongly). A callback
//! runs within its instruction, so what one CPU does before it lets another one go on is seen in that order.

mod options;
mod qemu;

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

use hazards::{
    Access, Instruction, ItState, Machine, Mode, Operation, condition_holds, decode, is_strd,
    of_thumb,
};
use options::{Guests, Options};
use qemu::{Block, Id, Info, Insn, Value};

/// The version of QEMU's interface that this is written for.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static qemu_plugin_version: c_int = 4;

struct Checker {
    machine: Machine,
    out: File,
    options: Options,
    /// Where the image lies in memory, as its first word is found.
    load: Option<u32>,
    /// Addresses of the instructions that were followed.
    places: BTreeSet<u32>,
    /// Of each CPU: first half of a store of two words.
    halves: Vec<Option<Half>>,
}

struct Half {
    pc: u32,
    pa: u64,
    value: u32,
}

/// The image's virtual address, and its largest size.
const IMAGE: u32 = 0x3E00_0000;
const IMAGE_SIZE: u32 = 0x20_0000;
/// Offset of the register of SGIs in the distributor.
const GICD_SGIR: u32 = 0xF00;
/// First word of the image (boot/head.S).
const FIRST_WORD: u32 = 0xE225_5A4D;
/// Of CPSR: the hypervisor's mode, and Thumb.
const MODE_HYP: u32 = 0x1A;
const THUMB: u32 = 1 << 5;

static CHECKER: OnceLock<Mutex<Checker>> = OnceLock::new();

fn with<R>(f: impl FnOnce(&mut Checker) -> R) -> Option<R> {
    let mut checker = CHECKER.get()?.lock().ok()?;
    let result = f(&mut checker);
    if checker.machine.has_reports() {
        checker.write_reports();
    }
    Some(result)
}

impl Checker {
    fn write_reports(&mut self) {
        for report in self.machine.take_reports() {
            let (pc, cause) = (self.in_image(report.pc), self.in_image(report.cause));
            let line = format!(
                "{:?} {pc:#x} {cause:#x} {:#x} {}\n",
                report.kind,
                report.address,
                report.kind.words()
            );
            // Nothing else to tell it by: a run without its file fails where that is read.
            let _ = self.out.write_all(line.as_bytes());
        }
    }

    fn was_at(&mut self, pc: u32) {
        let place = self.in_image(pc);
        self.places.insert(place);
    }

    /// Returns the virtual address that the image has for an address before translation is on.
    fn in_image(&self, pc: u32) -> u32 {
        match self.load {
            Some(load) if pc.wrapping_sub(load) < IMAGE_SIZE => pc - load + IMAGE,
            _ => pc,
        }
    }

    fn write_seen(&mut self) {
        let file = format!("{}.seen", self.options.out);
        let seen = self.machine.seen();
        let places = self.places.iter().map(|place| format!("{place:#x} "));
        let places: String = places.collect();
        // As for the reports.
        let _ = std::fs::write(file, format!("{seen:?}\n{places}\n"));
    }
}

/// Loads the plugin.
///
/// # Safety
/// QEMU calls it, with what its interface says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU's arguments.
    let (info, words) = unsafe {
        let words = (0..argc as usize).map(|n| std::ffi::CStr::from_ptr(*argv.add(n)));
        (&*info, words)
    };
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let cpus = info.max_vcpus.max(1) as usize;
    let checker = Options::parse(&words).and_then(|options| {
        let out = File::create(&options.out)
            .map_err(|error| format!("cannot write {}: {error}", options.out))?;
        Ok(Checker {
            machine: Machine::new(options.base, options.size, cpus, options.erratum),
            out,
            options,
            load: None,
            places: BTreeSet::new(),
            halves: (0..cpus).map(|_| None).collect(),
        })
    });
    match checker {
        Ok(checker) => {
            if CHECKER.set(Mutex::new(checker)).is_err() {
                return 1;
            }
        }
        Err(reason) => {
            eprintln!("hazards: {reason}");
            return 1;
        }
    }
    // SAFETY: the functions are of the right types and stay.
    unsafe {
        qemu::qemu_plugin_register_vcpu_init_cb(id, cpu_starts);
        qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu::qemu_plugin_register_atexit_cb(id, ends, std::ptr::null_mut());
    }
    0
}

extern "C" fn cpu_starts(_id: Id, _cpu: c_uint) {
    qemu::find_registers();
}

extern "C" fn ends(_id: Id, _data: *mut c_void) {
    with(Checker::write_seen);
}

extern "C" fn translated(_id: Id, block: *mut Block) {
    // Registers can be read here: the CPU is between two blocks.
    let cpsr = qemu::cpsr();
    let thumb = cpsr & THUMB != 0;
    // SAFETY: the block is valid during this call.
    let insns = unsafe {
        (0..qemu::qemu_plugin_tb_n_insns(block)).map(|n| qemu::qemu_plugin_tb_get_insn(block, n))
    };
    if cpsr & 0x1F == MODE_HYP && thumb {
        watch_thumb(insns, ItState::of(cpsr));
    } else if cpsr & 0x1F == MODE_HYP {
        insns.for_each(|insn| watch_hyp(insn, qemu::word(insn, false)));
    } else {
        watch_guest(insns, thumb);
    }
}

/// Packs what a callback is told: an instruction's address and word.
fn pack(pc: u32, word: u32) -> *mut c_void {
    (u64::from(word) << 32 | u64::from(pc)) as *mut c_void
}

fn unpack(data: *mut c_void) -> (u32, u32) {
    let data = data as u64;
    (data as u32, (data >> 32) as u32)
}

fn address(insn: *const Insn) -> u32 {
    // SAFETY: the instruction is of the block at hand.
    unsafe { qemu::qemu_plugin_insn_vaddr(insn) as u32 }
}

/// Watches a block of the hypervisor's Thumb code, which begins in this state.
fn watch_thumb(insns: impl Iterator<Item = *mut Insn>, mut state: ItState) {
    for insn in insns {
        let word = qemu::word(insn, true);
        let condition = state.next((word >> 16) as u16);
        // SAFETY: the instruction is of the block at hand.
        let is_wide = unsafe { qemu::qemu_plugin_insn_size(insn) } == 4;
        watch_hyp(
            insn,
            if is_wide {
                of_thumb(word, condition)
            } else {
                0
            },
        );
    }
}

/// Watches an instruction of the hypervisor, given as that of Arm state.
fn watch_hyp(insn: *mut Insn, word: u32) {
    let pc = address(insn);
    let blind = with(|checker| {
        if word == FIRST_WORD && checker.load.is_none() {
            checker.load = Some(pc);
        }
        let place = checker.in_image(pc);
        checker.options.blind.contains(&place)
    });
    if blind == Some(true) {
        return;
    }
    // SAFETY: the instruction is of the block at hand, the functions are of the right types.
    unsafe {
        match decode(word) {
            None => {}
            Some(Instruction::Operation(..)) => qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                insn,
                hyp_operation,
                qemu::READS_REGS,
                pack(pc, word),
            ),
            Some(_) => qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                insn,
                hyp_barrier,
                qemu::NO_REGS,
                pack(pc, word),
            ),
        }
        qemu::qemu_plugin_register_vcpu_mem_cb(
            insn,
            hyp_access,
            qemu::NO_REGS,
            qemu::READS_AND_WRITES,
            pack(pc, word),
        );
    }
}

fn watch_guest(insns: impl Iterator<Item = *mut Insn>, thumb: bool) {
    let watch = with(|checker| checker.options.guests).unwrap_or(Guests::Off);
    const M_AND_C: u32 = 1 | 1 << 2;
    let sctlr = qemu::sctlr();
    let accesses = match watch {
        Guests::Off => return,
        Guests::Early => sctlr & M_AND_C != M_AND_C,
        Guests::All => true,
    };
    for insn in insns {
        let pc = address(insn);
        // SAFETY: as above.
        unsafe {
            if qemu::qemu_plugin_insn_size(insn) == 4
                && let word = qemu::word(insn, thumb)
                && let Some(Instruction::Operation(operation, ..)) = decode(word)
                && matches!(
                    operation,
                    Operation::Sctlr
                        | Operation::Iciallu
                        | Operation::Icialluis
                        | Operation::Dccmvac
                        | Operation::Dccimvac
                )
            {
                qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                    insn,
                    guest_operation,
                    qemu::READS_REGS,
                    pack(pc, word),
                );
            }
            if accesses {
                qemu::qemu_plugin_register_vcpu_mem_cb(
                    insn,
                    guest_access,
                    qemu::NO_REGS,
                    qemu::READS_AND_WRITES,
                    pack(pc, 0),
                );
            }
            if sctlr & 1 == 0 {
                qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                    insn,
                    guest_fetch,
                    qemu::NO_REGS,
                    pack(pc, 0),
                );
            }
        }
    }
}

/// Returns what an operation writes, if its condition holds.
fn operand(word: u32) -> Option<(Operation, u64)> {
    let Some(Instruction::Operation(operation, low, high)) = decode(word) else {
        return None;
    };
    if word >> 28 < 0xE && !condition_holds(word >> 28, qemu::cpsr()) {
        return None;
    }
    let value = match operation {
        Operation::ReadPar => 0,
        _ => {
            let high = high.map_or(0, |high| u64::from(qemu::general(high)));
            high << 32 | u64::from(qemu::general(low))
        }
    };
    Some((operation, value))
}

extern "C" fn hyp_operation(cpu: c_uint, data: *mut c_void) {
    let (pc, word) = unpack(data);
    if let Some((operation, value)) = operand(word) {
        with(|checker| {
            checker.was_at(pc);
            checker
                .machine
                .operate(Mode::Hyp, cpu as usize, pc, operation, value)
        });
    }
}

extern "C" fn guest_operation(cpu: c_uint, data: *mut c_void) {
    let (pc, word) = unpack(data);
    if let Some((operation, value)) = operand(word) {
        with(|checker| {
            checker
                .machine
                .operate(Mode::Guest, cpu as usize, pc, operation, value)
        });
    }
}

extern "C" fn hyp_barrier(cpu: c_uint, data: *mut c_void) {
    let (pc, word) = unpack(data);
    let cpu = cpu as usize;
    with(|checker| checker.was_at(pc));
    with(|checker| match decode(word) {
        Some(Instruction::Barrier(barrier)) => checker.machine.barrier(Mode::Hyp, cpu, barrier),
        Some(Instruction::Eret) => {
            checker.machine.enter_guest(cpu, pc);
            if checker.machine.seen().guest_entries % 256 == 1 {
                checker.write_seen();
            }
        }
        _ => {}
    });
}

extern "C" fn guest_fetch(cpu: c_uint, data: *mut c_void) {
    let (pc, _) = unpack(data);
    with(|checker| checker.machine.fetch(cpu as usize, pc));
}

extern "C" fn hyp_access(cpu: c_uint, info: u32, va: u64, data: *mut c_void) {
    let (pc, word) = unpack(data);
    accessed(Mode::Hyp, cpu, info, va, pc, word);
}

extern "C" fn guest_access(cpu: c_uint, info: u32, va: u64, data: *mut c_void) {
    let (pc, word) = unpack(data);
    accessed(Mode::Guest, cpu, info, va, pc, word);
}

fn accessed(mode: Mode, cpu: c_uint, info: u32, va: u64, pc: u32, word: u32) {
    // SAFETY: QEMU's values, during its callback.
    let (pa, size, stores, value) = unsafe {
        let side = qemu::qemu_plugin_get_hwaddr(info, va);
        if side.is_null() {
            return;
        }
        let stores = qemu::qemu_plugin_mem_is_store(info);
        if qemu::qemu_plugin_hwaddr_is_io(side) {
            // No other device of the hypervisor's has a register at this offset that it writes.
            if stores && mode == Mode::Hyp && va as u32 & 0xFFF == GICD_SGIR {
                with(|checker| checker.machine.send_interrupt(cpu as usize, pc));
            }
            return;
        }
        let value = match (stores, mode) {
            (true, Mode::Hyp) => qemu::qemu_plugin_mem_get_value(info),
            _ => Value {
                kind: 0,
                low: 0,
                high: 0,
            },
        };
        (
            qemu::qemu_plugin_hwaddr_phys_addr(side),
            1u32 << qemu::qemu_plugin_mem_size_shift(info),
            stores,
            value,
        )
    };
    let access = Access {
        cpu: cpu as usize,
        pc,
        va: va as u32,
        pa,
        size: size.min(8),
        value: stores.then_some(value.low),
    };
    with(|checker| {
        if stores && mode == Mode::Hyp && size == 4 && is_strd(word) {
            checker.store_half(access, value.low as u32);
        } else {
            checker.machine.access(mode, access);
            if size == 16 {
                checker.machine.access(
                    mode,
                    Access {
                        pa: pa + 8,
                        va: va as u32 + 8,
                        value: stores.then_some(value.high),
                        ..access
                    },
                );
            }
        }
    });
}

impl Checker {
    fn store_half(&mut self, access: Access, value: u32) {
        let Access { cpu, pc, pa, .. } = access;
        match self.halves[cpu].take() {
            Some(half) if half.pc == pc && half.pa + 4 == pa => {
                let whole = Access {
                    pa: half.pa,
                    va: access.va.wrapping_sub(4),
                    size: 8,
                    value: Some(u64::from(value) << 32 | u64::from(half.value)),
                    ..access
                };
                self.machine.access(Mode::Hyp, whole);
            }
            _ if pa % 8 == 0 => self.halves[cpu] = Some(Half { pc, pa, value }),
            _ => self.machine.access(Mode::Hyp, access),
        }
    }
}

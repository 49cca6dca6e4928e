//! QEMU's interface for TCG plugins, version 4 (QEMU 9.2 to 10.0; docs/devel/tcg-plugins in QEMU), and
//! GLib's arrays, which it hands out.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

pub type Id = u64;

/// A block that is being translated, one of its instructions, an access, its physical side.
pub enum Block {}
pub enum Insn {}
pub enum PhysicalSide {}

#[repr(C)]
pub struct Info {
    pub target_name: *const c_char,
    pub version_min: c_int,
    pub version_cur: c_int,
    pub system_emulation: bool,
    pub smp_vcpus: c_int,
    pub max_vcpus: c_int,
}

/// Value of an access: its type, then up to 16 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Value {
    pub kind: c_int,
    pub low: u64,
    pub high: u64,
}

#[repr(C)]
pub struct Array {
    pub data: *mut c_void,
    pub len: c_uint,
}

#[repr(C)]
struct Descriptor {
    handle: usize,
    name: *const c_char,
    feature: *const c_char,
}

pub const NO_REGS: c_int = 0;
pub const READS_REGS: c_int = 1;
pub const READS_AND_WRITES: c_int = 3;

pub type Executed = extern "C" fn(cpu: c_uint, data: *mut c_void);
pub type Accessed = extern "C" fn(cpu: c_uint, info: u32, va: u64, data: *mut c_void);

unsafe extern "C" {
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, f: extern "C" fn(Id, *mut Block));
    pub fn qemu_plugin_register_vcpu_init_cb(id: Id, f: extern "C" fn(Id, c_uint));
    pub fn qemu_plugin_register_atexit_cb(
        id: Id,
        f: extern "C" fn(Id, *mut c_void),
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
        f: Executed,
        flags: c_int,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut Insn,
        f: Accessed,
        flags: c_int,
        rw: c_int,
        data: *mut c_void,
    );
    pub fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Insn;
    pub fn qemu_plugin_insn_data(insn: *const Insn, to: *mut c_void, len: usize) -> usize;
    pub fn qemu_plugin_insn_size(insn: *const Insn) -> usize;
    pub fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;
    pub fn qemu_plugin_mem_size_shift(info: u32) -> c_uint;
    pub fn qemu_plugin_mem_is_store(info: u32) -> bool;
    pub fn qemu_plugin_mem_get_value(info: u32) -> Value;
    pub fn qemu_plugin_get_hwaddr(info: u32, va: u64) -> *mut PhysicalSide;
    pub fn qemu_plugin_hwaddr_is_io(side: *const PhysicalSide) -> bool;
    pub fn qemu_plugin_hwaddr_phys_addr(side: *const PhysicalSide) -> u64;
    fn qemu_plugin_get_registers() -> *mut Array;
    fn qemu_plugin_read_register(handle: usize, bytes: *mut Array) -> c_int;
    fn g_byte_array_new() -> *mut Array;
    fn g_byte_array_set_size(bytes: *mut Array, len: c_uint) -> *mut Array;
    fn g_array_free(array: *mut Array, free_segment: c_int) -> *mut c_char;
}

/// Handles of the registers that are read: r0 to lr, CPSR, SCTLR. QEMU names them alike on all CPUs.
pub struct Registers {
    general: [usize; 15],
    cpsr: usize,
    sctlr: usize,
}

static REGISTERS: OnceLock<Registers> = OnceLock::new();

/// Looks the registers up, on the first CPU that starts.
pub fn find_registers() {
    REGISTERS.get_or_init(|| {
        // SAFETY: called on a CPU's thread; the array is QEMU's, of descriptors with names that end in zero.
        let list = unsafe { qemu_plugin_get_registers() };
        // SAFETY: as above.
        let descriptors = unsafe {
            std::slice::from_raw_parts((*list).data.cast::<Descriptor>(), (*list).len as usize)
        };
        let find = |wanted: &str| {
            let found = descriptors.iter().find(|descriptor| {
                // SAFETY: as above.
                let name = unsafe { std::ffi::CStr::from_ptr(descriptor.name) };
                name.to_bytes() == wanted.as_bytes()
            });
            found
                .unwrap_or_else(|| panic!("QEMU has no register {wanted}"))
                .handle
        };
        let mut general = [0; 15];
        for (n, handle) in general.iter_mut().enumerate() {
            *handle = match n {
                13 => find("sp"),
                14 => find("lr"),
                _ => find(&format!("r{n}")),
            };
        }
        let registers = Registers {
            general,
            cpsr: find("cpsr"),
            sctlr: find("SCTLR"),
        };
        // SAFETY: the list was given to us.
        unsafe { g_array_free(list, 1) };
        registers
    });
}

fn read(which: impl Fn(&Registers) -> usize) -> u32 {
    thread_local! {
        // SAFETY: one array for each thread that reads, which live as long as QEMU.
        static BYTES: *mut Array = unsafe { g_byte_array_new() };
    }
    let Some(registers) = REGISTERS.get() else {
        return 0;
    };
    BYTES.with(|bytes| {
        // SAFETY: 1. the array is this thread's; 2. QEMU appends the register to it.
        unsafe {
            g_byte_array_set_size(*bytes, 0);
            let len = qemu_plugin_read_register(which(registers), *bytes);
            if len < 4 {
                return 0;
            }
            (**bytes).data.cast::<u32>().read_unaligned()
        }
    })
}

pub fn general(n: u8) -> u32 {
    read(|registers| registers.general[usize::from(n) % 15])
}

pub fn cpsr() -> u32 {
    read(|registers| registers.cpsr)
}

pub fn sctlr() -> u32 {
    read(|registers| registers.sctlr)
}

/// The word of an instruction; Thumb's halfwords with the first one on top.
pub fn word(insn: *const Insn, thumb: bool) -> u32 {
    let mut bytes = [0u8; 4];
    // SAFETY: writes at most four bytes.
    unsafe { qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), 4) };
    let word = u32::from_le_bytes(bytes);
    if thumb { word.rotate_left(16) } else { word }
}

//! A symbol table and what is in it: the build's encoder must write it, and the hypervisor's decoder read it.

/// Start, size and name of each function.
pub const FUNCTIONS: [(u32, u32, &str); 4] = [
    (0x3E00_1000, 0x10, "memcpy"),
    (0x3E00_1010, 0x400, "domain::run::pick"),
    (0x3E00_1410, 0x20, "domain::run::unhalt"),
    (0x3E00_1500, 0x8, "vgic::Vgic::raise"),
];

/// The table of these functions, before it is filled up with zeroes. Two entries without a name end `unhalt` and `raise`.
pub const TABLE: &[u8] = b"\x00\x10\x00>\x06\x00\x00\x00\x00\x00\x06memcpy\x08\x00\x11domain::run::pick\x80\x04\x0d\x06unhalt\x10\x00\x00h\x00\x11vgic::Vgic::raise\x04\x00\x00";

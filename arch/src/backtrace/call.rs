/// Returns whether Thumb code calls a function: BL or BLX to a label, BLX to a register (DDI 0406C.d A8.8.25, A8.8.26).
/// `before` are the two halfwords before the return address, the lower one first.
pub fn is_call([first, second]: [u16; 2]) -> bool {
    let to_label = first & 0xF800 == 0xF000 && second & 0xC000 == 0xC000;
    to_label || second & 0xFF87 == 0x4780
}

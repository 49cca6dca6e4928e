use std::collections::VecDeque;

use super::{HALF_FIFO, INTERRUPTS, Line, Refused, SbsaUart};
use armv7::syndrome::Width;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

const WIDTHS: [Width; 3] = [Width::Byte, Width::Half, Width::Word];
const TXFE: u32 = 0x80;
const RXFF: u32 = 0x40;
const TXFF_BUSY: u32 = 0x28;
const RXFE: u32 = 0x10;
const RTI: u32 = 0x40;
const TXI: u32 = 0x20;
const RXI: u32 = 0x10;

#[derive(Default)]
struct Terminal {
    input: VecDeque<u8>,
    output: Vec<u8>,
    room: usize,
}

impl Terminal {
    const MOST: usize = 64;

    fn roomy() -> Self {
        Self {
            room: 1000,
            ..Self::default()
        }
    }
}

impl Line for Terminal {
    fn take(&mut self) -> Option<u8> {
        self.input.pop_front()
    }
    fn waiting(&self) -> usize {
        self.input.len()
    }
    fn is_full(&self) -> bool {
        self.input.len() >= Self::MOST
    }
    fn has_room(&self) -> bool {
        self.room > 0
    }
    fn send(&mut self, byte: u8) {
        if self.room > 0 {
            self.room -= 1;
            self.output.push(byte);
        }
    }
}

/// A UART and its line.
struct Bench(SbsaUart, Terminal);

impl Bench {
    fn new() -> Self {
        Self(SbsaUart::new(), Terminal::roomy())
    }
    fn read(&mut self, offset: u32) -> u32 {
        self.0.read(offset, Width::Word, &mut self.1).unwrap()
    }
    fn write(&mut self, offset: u32, value: u32) {
        self.0
            .write(offset, Width::Word, value, &mut self.1)
            .unwrap();
    }
    fn types(&mut self, bytes: &[u8]) {
        self.1.input.extend(bytes);
        self.0.arrived(&self.1);
    }
}

#[test]
fn after_reset_it_is_empty_both_ways_and_signals_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.read(0x18), TXFE | RXFE);
    for offset in [0x00, 0x04, 0x38, 0x3C, 0x40] {
        assert_eq!(bench.read(offset), 0, "{offset:#x}");
    }
    assert!(!bench.0.is_raised());
}

#[test]
fn each_byte_sent_arrives_and_signals_room() {
    let mut bench = Bench::new();
    bench.write(0x00, 0x1234_5641);
    assert_eq!(bench.1.output, [0x41]);
    assert_eq!((bench.read(0x3C), bench.read(0x40)), (TXI, 0));
    bench.write(0x38, TXI);
    assert_eq!(bench.read(0x40), TXI);
    assert!(bench.0.is_raised());
    bench.write(0x44, TXI);
    assert!(!bench.0.is_raised());
    // Xen 4.17 never set TXFE again after the first byte.
    assert_eq!(bench.read(0x18), TXFE | RXFE);
}

#[test]
fn a_line_without_room_is_full_and_busy_until_there_is_room() {
    let mut bench = Bench::new();
    bench.1.room = 1;
    bench.write(0x38, TXI);
    bench.write(0x00, 0x61);
    assert_eq!(bench.read(0x18), TXFF_BUSY | RXFE);
    assert!(!bench.0.is_raised());
    bench.write(0x00, 0x62);
    assert_eq!(bench.1.output, b"a", "a byte without room is lost");
    bench.0.drained(&bench.1);
    assert!(!bench.0.is_raised());
    bench.1.room = 5;
    bench.0.drained(&bench.1);
    assert!(bench.0.is_raised());
    assert_eq!(bench.read(0x18), TXFE | RXFE);
}

#[test]
fn input_is_signalled_at_once_and_at_half_a_fifo() {
    let mut bench = Bench::new();
    bench.types(b"x");
    assert_eq!((bench.read(0x18), bench.read(0x3C)), (TXFE, RTI));
    bench.types(&[b'y'; HALF_FIFO - 1]);
    assert_eq!(bench.read(0x3C), RTI | RXI);
    assert_eq!(bench.read(0x00), u32::from(b'x'));
    assert_eq!(bench.read(0x3C), RTI, "fewer than half a FIFO are left");
    for _ in 0..HALF_FIFO - 1 {
        assert_eq!(bench.read(0x00), u32::from(b'y'));
    }
    assert_eq!((bench.read(0x18), bench.read(0x3C)), (TXFE | RXFE, 0));
    assert_eq!(bench.read(0x00), 0, "nothing is left");
}

#[test]
fn full_input_is_told() {
    let mut bench = Bench::new();
    bench.types(&[0; Terminal::MOST]);
    assert_eq!(bench.read(0x18), TXFE | RXFF);
}

#[test]
fn an_interrupt_that_is_cleared_comes_back_with_the_next_byte() {
    let mut bench = Bench::new();
    bench.write(0x38, RTI);
    bench.types(b"a");
    bench.write(0x44, 0x7FF);
    assert!(!bench.0.is_raised());
    bench.types(b"b");
    assert!(bench.0.is_raised());
}

#[test]
fn the_mask_has_eleven_bits_and_takes_part_writes() {
    let mut bench = Bench::new();
    bench.write(0x38, u32::MAX);
    assert_eq!(bench.read(0x38), INTERRUPTS);
    for (width, kept) in [(Width::Byte, 0x700), (Width::Half, 0)] {
        bench.write(0x38, u32::MAX);
        bench.0.write(0x38, width, 0, &mut bench.1).unwrap();
        assert_eq!(bench.read(0x38), kept);
    }
}

#[test]
fn every_width_reads_the_low_bits_of_every_register() {
    let mut bench = Bench::new();
    bench.write(0x38, 0x7FF);
    for (width, mask) in WIDTHS.into_iter().zip([0xFF, 0xFFFF, u32::MAX]) {
        let mut read = |offset| bench.0.read(offset, width, &mut bench.1);
        assert_eq!(read(0x38), Ok(0x7FF & mask));
        for offset in [0x00, 0x04, 0x3C, 0x40, 0x48] {
            assert_eq!(read(offset), Ok(0), "{offset:#x}");
        }
        assert_eq!(read(0x44), Err(Refused));
    }
}

#[test]
fn what_only_a_full_pl011_has_reads_as_zero_and_ignores_writes() {
    let offsets = (0x20..=0x34)
        .step_by(4)
        .chain([0x48])
        .chain((0xFE0..=0xFFC).step_by(4));
    for offset in offsets {
        for width in WIDTHS {
            let mut bench = Bench::new();
            let written = bench.0.write(offset, width, u32::MAX, &mut bench.1);
            assert_eq!(written, Ok(()), "{offset:#x}");
            assert_eq!(bench.0.read(offset, width, &mut bench.1), Ok(0));
            assert_eq!(bench.0, SbsaUart::new());
        }
    }
}

#[test]
fn all_other_offsets_are_refused() {
    let known = [0x00, 0x04, 0x18, 0x38, 0x3C, 0x40, 0x44, 0x48];
    let silent = |offset: u32| {
        offset.is_multiple_of(4)
            && ((0x20..=0x34).contains(&offset) || (0xFE0..0x1000).contains(&offset))
    };
    for offset in (0..0x1000).filter(|offset| !known.contains(offset) && !silent(*offset)) {
        for width in WIDTHS {
            let mut bench = Bench::new();
            let read = bench.0.read(offset, width, &mut bench.1);
            let written = bench.0.write(offset, width, 0, &mut bench.1);
            assert_eq!((read, written), (Err(Refused), Err(Refused)), "{offset:#x}");
        }
    }
}

proptest! {
    #[test]
    fn no_access_panics_and_the_line_is_mis(
        accesses in proptest::collection::vec((any::<bool>(), 0u32..0x1000, 0usize..3, any::<u32>()), 0..200),
    ) {
        let mut bench = Bench::new();
        bench.1.room = 20;
        for (write, offset, width, value) in accesses {
            let width = WIDTHS[width];
            if write {
                let _ = bench.0.write(offset & !3, width, value, &mut bench.1);
            } else {
                let _ = bench.0.read(offset, width, &mut bench.1);
            }
            if value % 7 == 0 {
                bench.types(&[value as u8]);
            }
            let (mis, flags) = (bench.read(0x40), bench.read(0x18));
            prop_assert_eq!(mis != 0, bench.0.is_raised());
            prop_assert_eq!(flags & RXFE != 0, bench.1.input.is_empty());
            prop_assert!(flags & TXFE == 0 || flags & TXFF_BUSY == 0);
        }
    }
}

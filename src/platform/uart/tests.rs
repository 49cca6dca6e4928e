use super::scif::{SCIF, SCIFA};
use super::{Family, Interrupts, Model, PATIENCE, Registers, Uart, Width};
use crate::platform::testing::{VIRT, compile_with, tree};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

/// Register values, scripted answers that come first, and all writes.
#[derive(Default)]
struct Fake {
    values: BTreeMap<u32, u32>,
    answers: RefCell<BTreeMap<u32, VecDeque<u32>>>,
    writes: Vec<(u32, u32)>,
    reads: RefCell<Vec<u32>>,
    width: Option<Width>,
    /// Registers of one byte among wider ones.
    bytes: &'static [u32],
}

impl Fake {
    fn check_width(&self, offset: u32, width: Width) {
        let expected = match self.bytes.contains(&offset) {
            true => Width::Byte,
            false => self.width.unwrap_or(Width::Word),
        };
        assert_eq!(width, expected);
    }
}

type Shared = Rc<RefCell<Fake>>;

impl Registers for Shared {
    fn read(&self, offset: u32, width: Width) -> u32 {
        let fake = self.borrow();
        fake.check_width(offset, width);
        fake.reads.borrow_mut().push(offset);
        let scripted = fake
            .answers
            .borrow_mut()
            .get_mut(&offset)
            .and_then(VecDeque::pop_front);
        scripted.unwrap_or_else(|| fake.values.get(&offset).copied().unwrap_or(0))
    }

    fn write(&mut self, offset: u32, width: Width, value: u32) {
        let mut fake = self.borrow_mut();
        fake.check_width(offset, width);
        fake.writes.push((offset, value));
    }
}

fn fake(values: &[(u32, u32)]) -> Shared {
    let fake = Fake {
        values: values.iter().copied().collect(),
        ..Fake::default()
    };
    Rc::new(RefCell::new(fake))
}

fn script(fake: &Shared, offset: u32, answers: &[u32]) {
    let fake = fake.borrow();
    let answers = answers.iter().copied().collect();
    fake.answers.borrow_mut().insert(offset, answers);
}

fn writes(fake: &Shared) -> Vec<(u32, u32)> {
    core::mem::take(&mut fake.borrow_mut().writes)
}

#[test]
fn a_pl011_keeps_its_speed_and_masks_its_interrupts() {
    let regs = fake(&[(0x2c, 0x60), (0x30, 0x1)]);
    let mut uart = Uart::new(Model::Pl011, regs.clone());
    let init = writes(&regs);
    assert!(
        init.iter()
            .all(|(offset, _)| ![0x24, 0x28].contains(offset))
    );
    assert!(init.contains(&(0x38, 0)) && init.contains(&(0x2c, 0x70)));
    assert!(init.contains(&(0x30, 0x301)));
    uart.raise_for(Interrupts::Receive);
    uart.raise_for(Interrupts::ReceiveAndTransmit);
    assert_eq!(writes(&regs), [(0x38, 0x50), (0x38, 0x70)]);
}

#[test]
fn a_pl011_waits_for_room_and_reads_what_is_there() {
    let regs = fake(&[]);
    let mut uart = Uart::new(Model::Pl011, regs.clone());
    writes(&regs);
    script(&regs, 0x18, &[0x20, 0x20, 0]);
    uart.put_all(b"x");
    assert_eq!(writes(&regs), [(0, u32::from(b'x'))]);
    script(&regs, 0x18, &[0x20]);
    assert_eq!(uart.put_some(b"y"), 0);
    script(&regs, 0x18, &[0, 0x10]);
    script(&regs, 0, &[0xf00 | u32::from(b'z')]);
    assert_eq!((uart.get(), uart.get()), (Some(b'z'), None));
}

#[test]
fn a_line_end_becomes_that_of_a_terminal() {
    let regs = fake(&[]);
    let mut uart = Uart::new(Model::Pl011, regs.clone());
    writes(&regs);
    let sent = || -> Vec<u32> { writes(&regs).iter().map(|(_, value)| *value).collect() };
    uart.put_all(b"a\n");
    assert_eq!(sent(), [97, 13, 10]);
    // Room for the carriage return alone, and for what follows later.
    script(&regs, 0x18, &[0, 0x20]);
    assert_eq!((uart.put_some(b"\n"), sent()), (0, [13].to_vec()));
    assert_eq!((uart.put_some(b"\n\n"), sent()), (2, [10, 13, 10].to_vec()));
}

#[test]
fn a_transmitter_that_never_empties_does_not_stop_the_machine() {
    let regs = fake(&[(0x18, 0x28)]);
    let mut uart = Uart::new(Model::Pl011, regs.clone());
    writes(&regs);
    regs.borrow().reads.borrow_mut().clear();
    uart.put_all(b"nobody\nhears this\n");
    uart.flush();
    assert_eq!(writes(&regs), []);
    let polls = regs.borrow().reads.borrow().len();
    assert!(polls < PATIENCE as usize + 20, "{polls} polls");
}

#[test]
fn a_16550_uses_its_shift_and_width_and_closes_the_divisor_latch() {
    let regs = fake(&[(0x0c, 0x83), (0x14, 0x60)]);
    regs.borrow_mut().width = Some(Width::Word);
    let model = Model::Ns16550 {
        shift: 2,
        width: Width::Word,
        family: Family::Plain,
    };
    let mut uart = Uart::new(model, regs.clone());
    assert_eq!(writes(&regs), [(0x0c, 3), (4, 0), (8, 1), (0x10, 0xb)]);
    uart.put_all(b"x");
    uart.raise_for(Interrupts::Receive);
    uart.raise_for(Interrupts::ReceiveAndTransmit);
    assert_eq!(writes(&regs), [(0, u32::from(b'x')), (4, 1), (4, 3)]);
    script(&regs, 0x14, &[0x61, 0x60]);
    script(&regs, 0, &[0x41]);
    assert_eq!((uart.get(), uart.get()), (Some(0x41), None));
}

#[test]
fn an_empty_16550_takes_as_many_bytes_as_it_has_a_fifo_for() {
    for (identification, depth) in [(0xc1, 16), (0x81, 1), (0x01, 1)] {
        let regs = fake(&[(2, identification)]);
        regs.borrow_mut().width = Some(Width::Byte);
        let model = Model::Ns16550 {
            shift: 0,
            width: Width::Byte,
            family: Family::Plain,
        };
        let mut uart = Uart::new(model, regs.clone());
        script(&regs, 5, &[0x20, 0]);
        assert_eq!(uart.put_some(&[b'x'; 40]), depth);
    }
}

#[test]
fn an_omap_uart_signals_when_all_has_left() {
    let regs = fake(&[(0x40, 0x80)]);
    let model = Model::Ns16550 {
        shift: 2,
        width: Width::Word,
        family: Family::Omap,
    };
    let _uart = Uart::new(model, regs.clone());
    assert!(writes(&regs).contains(&(0x40, 0x88)));
}

#[test]
fn a_busy_synopsys_16550_is_calmed_by_its_status_register() {
    let regs = fake(&[(0x08, 0xc7)]);
    let model = Model::Ns16550 {
        shift: 2,
        width: Width::Word,
        family: Family::Plain,
    };
    let mut uart = Uart::new(model, regs.clone());
    uart.acknowledge();
    assert!(regs.borrow().reads.borrow().contains(&0x7c));
}

#[test]
fn an_exynos_uart_is_reset_without_touching_its_speed() {
    let regs = fake(&[]);
    script(&regs, 0x08, &[6, 6, 0]);
    let mut uart = Uart::new(Model::Exynos4210, regs.clone());
    let init = writes(&regs);
    assert!(
        init.iter()
            .all(|(offset, _)| ![0x28, 0x2c].contains(offset))
    );
    assert!(init.contains(&(0x38, 0xf)) && init.contains(&(0x08, 0x201)));
    assert_eq!(init.last(), Some(&(0x04, 0x85)));
    script(&regs, 0x18, &[1 << 24, 0, 1, 0]);
    script(&regs, 0x24, &[0x51]);
    uart.put_all(b"x");
    assert_eq!(writes(&regs), [(0x20, u32::from(b'x'))]);
    assert_eq!((uart.get(), uart.get()), (Some(0x51), None));
    uart.raise_for(Interrupts::Receive);
    uart.raise_for(Interrupts::ReceiveAndTransmit);
    script(&regs, 0x30, &[1]);
    uart.acknowledge();
    assert_eq!(writes(&regs), [(0x38, 0xc), (0x38, 0x8), (0x30, 1)]);
}

#[test]
fn an_imx_uart_keeps_its_speed_and_format_and_masks_its_interrupts() {
    let regs = fake(&[
        (0x84, 0x8028),
        (0x88, 0x3804),
        (0x8c, 0x8001),
        (0x90, 0x0a81),
    ]);
    let mut uart = Uart::new(Model::Imx, regs.clone());
    let init = writes(&regs);
    assert!(
        init.iter()
            .all(|(offset, _)| ![0xa4, 0xa8].contains(offset))
    );
    assert_eq!(
        init,
        [
            (0x80, 1),
            (0x88, 0x4),
            (0x8c, 0x8000),
            (0x90, 0x0a81),
            (0x84, 0x4027)
        ]
    );
    script(&regs, 0xb4, &[0x10, 0]);
    uart.put_all(b"x");
    assert_eq!(writes(&regs), [(0x40, u32::from(b'x'))]);
    script(&regs, 0x98, &[1, 0]);
    script(&regs, 0, &[0x8000 | u32::from(b'z')]);
    assert_eq!((uart.get(), uart.get()), (Some(b'z'), None));
    uart.raise_for(Interrupts::Receive);
    uart.raise_for(Interrupts::ReceiveAndTransmit);
    uart.raise_for(Interrupts::None);
    assert_eq!(writes(&regs), [(0x80, 0x201), (0x80, 0x2201), (0x80, 1)]);
}

#[test]
fn an_stm32_usart_gets_its_fifos_once_firmware_s_last_byte_has_left() {
    const ON: u32 = 1 | 1 << 2 | 1 << 3;
    const FIFOS: u32 = 1 << 29;
    let regs = fake(&[(0, ON | 1 << 5), (8, 1 | 1 << 12)]);
    script(&regs, 0x1c, &[0, 0, 1 << 6]);
    let mut uart = Uart::new(Model::Stm32h7, regs.clone());
    let steps = [
        (0, ON),
        (8, 1 << 12),
        (0, ON & !1),
        (0, ON & !1 | FIFOS),
        (0, ON | FIFOS),
    ];
    assert_eq!(writes(&regs), steps);
    script(&regs, 0x1c, &[0, 1 << 7, 1 << 5, 0]);
    script(&regs, 0x24, &[0x51]);
    uart.put_all(b"x");
    assert_eq!(writes(&regs), [(0x28, u32::from(b'x'))]);
    assert_eq!((uart.get(), uart.get()), (Some(0x51), None));
    uart.raise_for(Interrupts::ReceiveAndTransmit);
    uart.acknowledge();
    assert_eq!(
        writes(&regs),
        [(0, ON | FIFOS | 1 << 5 | 1 << 30), (0x20, 0xf)]
    );
    // Where firmware has turned them on, the line is not interrupted.
    let regs = fake(&[(0, ON | FIFOS)]);
    let _uart = Uart::new(Model::Stm32h7, regs.clone());
    assert!(
        writes(&regs)
            .iter()
            .all(|(offset, value)| *offset != 0 || value & 1 != 0)
    );
}

#[test]
fn a_scif_clears_each_flag_once_its_reason_is_gone() {
    const ON: u32 = 2 | 1 << 4 | 1 << 5;
    for (layout, fsr, ftdr, frdr, overrun) in [
        (SCIF, 0x10, 0x0c, 0x14, (0x24, 1)),
        (SCIFA, 0x14, 0x20, 0x24, (0x14, 1 << 9)),
    ] {
        let regs = fake(&[(8, 0xff), (fsr, 0x60)]);
        script(&regs, 8, &[0xfa]);
        regs.borrow_mut().width = Some(Width::Half);
        regs.borrow_mut().bytes = if layout == SCIF {
            &[0x0c, 0x14]
        } else {
            &[0x20, 0x24]
        };
        let mut uart = Uart::new(Model::Scif(layout), regs.clone());
        assert_eq!(writes(&regs), [(8, ON), (0x18, 0x30)]);
        // Full, then with room.
        script(&regs, 0x1c, &[16 << 8, 15 << 8]);
        uart.put_all(b"x");
        assert_eq!(writes(&regs), [(ftdr, u32::from(b'x')), (fsr, 0)]);
        // A byte that comes while the flag is cleared, then none.
        script(&regs, 0x1c, &[0, 1, 0, 0]);
        script(&regs, fsr, &[0x62, 0x60]);
        script(&regs, frdr, &[0x51]);
        assert_eq!((uart.get(), uart.get()), (Some(0x51), None));
        assert_eq!(writes(&regs), [(fsr, 0x60)]);
        uart.raise_for(Interrupts::Receive);
        uart.raise_for(Interrupts::ReceiveAndTransmit);
        assert_eq!(writes(&regs), [(8, ON | 1 << 6), (8, ON | 3 << 6)]);
        let (place, flag) = overrun;
        script(&regs, fsr, &[0xf0]);
        let (both, other) = ([0xf0, flag | 0x60], [flag]);
        script(&regs, place, if place == fsr { &both } else { &other });
        uart.acknowledge();
        let rest = if place == fsr { 0x60 } else { 0 };
        assert_eq!(writes(&regs), [(fsr, 0x60), (place, rest)]);
    }
}

#[test]
fn the_driver_is_chosen_by_name() {
    assert_eq!(Model::named("imx"), Some(Model::Imx));
    let words = Model::Ns16550 {
        shift: 2,
        width: Width::Word,
        family: Family::Plain,
    };
    assert_eq!(Model::named("uart8250,mmio32"), Some(words));
    assert_eq!(Model::named("x"), None);
}

#[test]
fn the_driver_is_chosen_by_compatible() {
    let model = |compatible: &str| {
        let bytes = compile_with(VIRT, &[("\"arm,pl011\", \"arm,primecell\"", compatible)]);
        Model::of(&tree(&bytes).find("/pl011@9000000").unwrap())
    };
    let synopsys = "\"snps,dw-apb-uart\"; reg-shift = <2>; reg-io-width = <4>";
    let words = Model::Ns16550 {
        shift: 2,
        width: Width::Word,
        family: Family::Plain,
    };
    let bytes = Model::Ns16550 {
        shift: 0,
        width: Width::Byte,
        family: Family::Plain,
    };
    assert_eq!(model(synopsys), Some(words));
    assert_eq!(model("\"ns16550a\""), Some(bytes));
    let omap = Model::Ns16550 {
        shift: 2,
        width: Width::Byte,
        family: Family::Omap,
    };
    assert_eq!(model("\"ti,omap4-uart\""), Some(omap));
    assert_eq!(
        model("\"samsung,exynos4210-uart\""),
        Some(Model::Exynos4210)
    );
    assert_eq!(model("\"fsl,imx6ul-uart\""), Some(Model::Imx));
    assert_eq!(model("\"st,stm32h7-uart\""), Some(Model::Stm32h7));
    let scif = "\"renesas,scif-r8a7790\", \"renesas,rcar-gen2-scif\", \"renesas,scif\"";
    assert_eq!(model(scif), Some(Model::Scif(SCIF)));
    let words_unsaid = "\"mediatek,mt7623-uart\", \"mediatek,mt6577-uart\"";
    assert_eq!(model(words_unsaid), Some(words));
    assert_eq!(model("\"x,uart\""), None);
}

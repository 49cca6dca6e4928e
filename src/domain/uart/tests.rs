use armv7::syndrome::Width;

use super::{INPUT, LINE, Printable, Queue, open_on_console, read, receive, write};
use crate::console;
use crate::domain::Rights;
use crate::domain::testing::{NO_TLB, guest};
use crate::id::{IntId, VcpuId};

const IMSC: u32 = 0x38;

fn queue() -> Queue {
    Queue {
        bytes: [0; INPUT],
        first: 0,
        len: 0,
    }
}

#[test]
fn input_waits_in_order_and_what_is_too_much_is_lost() {
    let mut queue = queue();
    for round in 0..3 {
        (0..INPUT + 5).for_each(|n| queue.push((n + round) as u8));
        assert_eq!(queue.len, INPUT);
        for n in 0..INPUT {
            assert_eq!(queue.pop(), Some((n + round) as u8));
        }
        assert_eq!(queue.pop(), None);
        queue.push(0);
        assert_eq!(queue.pop(), Some(0));
    }
}

#[test]
fn a_guest_cannot_move_the_cursor_in_a_line_of_ours() {
    let shown = Printable(b"\x1b[2Ja\tb\r\xff~").to_string();
    assert_eq!(shown, "?[2Ja\tb?~");
}

#[test]
fn a_domain_without_a_uart_has_no_registers() {
    let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    assert!(read(&domain, 0x18, Width::Word).is_err());
    assert!(write(&domain, 0, Width::Word, 0).is_err());
    receive(&domain, b'x');
}

#[test]
fn lines_are_printed_whole_with_the_domain_before_them() {
    console::remember();
    let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    open_on_console(&domain).unwrap();
    let from = console::ring_start();
    let long = "x".repeat(LINE + 4);
    for byte in format!("one\r\n{long}\ntwo").bytes() {
        write(&domain, 0, Width::Byte, byte.into()).unwrap();
    }
    super::close(&domain);
    let mut out = [0; 4096];
    let (count, _) = console::read_ring(from, &mut out);
    let text = String::from_utf8_lossy(&out[..count]).into_owned();
    let name = domain.id.0;
    let whole = &long[..LINE];
    for line in [
        format!("(XEN) DOM{name}: one\n"),
        format!("(XEN) DOM{name}: {whole}\n"),
        format!("(XEN) DOM{name}: xxxx\n"),
        format!("(XEN) DOM{name}: two\n"),
    ] {
        assert!(text.contains(&line), "{line:?} in {text:?}");
    }
}

#[test]
fn the_interrupt_is_pending_while_the_line_is_high() {
    let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    open_on_console(&domain).unwrap();
    let irq = IntId::new(32).unwrap();
    let pending = || {
        let vgic = domain.vgic.lock();
        vgic.snapshot(VcpuId::ZERO, irq).unwrap().pending
    };
    receive(&domain, b'x');
    assert!(!pending(), "it is masked");
    write(&domain, IMSC, Width::Word, 0x50).unwrap();
    assert!(pending());
    assert_eq!(read(&domain, 0, Width::Word), Ok(u32::from(b'x')));
    assert!(!pending());
    super::close(&domain);
}

use armv7::syndrome::Width;

use super::{INPUT, LINE, Printable, Queue, open_on_console, open_on_ring, read, receive, write};
use crate::console;
use crate::domain::guest_map::Layout;
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::{self, Rights, registry};
use crate::error::Errno;
use crate::event::EventTable;
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
    open_on_console(&domain, &Layout::new().unwrap()).unwrap();
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
    open_on_console(&domain, &Layout::new().unwrap()).unwrap();
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

const DR: u32 = 0;
const FR: u32 = 0x18;
const RIS: u32 = 0x3C;

#[test]
fn a_daemon_reads_and_writes_by_the_page() {
    let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[3]);
    let (daemon, _vcpu) = guest(Rights::DOM0, NO_TLB, &[]);
    let port = open_on_ring(&domain, 3, daemon.id).unwrap();
    let page = domain.pin(3).unwrap();
    let ring = armv7::frame::page(page.mfn()).unwrap();
    let word = |at| ring.u32_at(at).unwrap();
    let (near, _) =
        EventTable::bind_interdomain(&mut daemon.events.lock(), &mut domain.events.lock(), port)
            .unwrap();
    let is_told = || {
        let told = daemon.events.lock().is_pending(near).unwrap();
        let shared = daemon.events.lock();
        shared.shared_info().words().iter().for_each(|word| {
            word.store(0, std::sync::atomic::Ordering::Relaxed);
        });
        told
    };
    assert!(is_told(), "the binder may have missed events");
    // A byte that the guest sends appears in the page, and the daemon gets an event.
    for byte in *b"hi" {
        write(&domain, DR, Width::Byte, byte.into()).unwrap();
    }
    assert!(is_told());
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let mut sent = [0; 2];
    assert!(ring.read(1024, &mut sent));
    assert_eq!((&sent, word(3084).load(relaxed)), (b"hi", 2));
    // The daemon writes, tells, and the guest reads.
    assert!(ring.write(0, b"ok"));
    word(3076).store(2, relaxed);
    domain::send(&daemon, near).unwrap();
    assert_eq!(read(&domain, RIS, Width::Word).unwrap() & 0x40, 0x40);
    for byte in *b"ok" {
        assert_eq!(read(&domain, DR, Width::Word), Ok(byte.into()));
    }
    assert!(is_told());
    assert_eq!(word(3072).load(relaxed), 2);
    assert_eq!(read(&domain, DR, Width::Word), Ok(0));
    // Without room the transmitter is full, and what is sent all the same is lost.
    word(3080).store(2u32.wrapping_sub(2048), relaxed);
    word(3084).store(2, relaxed);
    assert_eq!(read(&domain, FR, Width::Word).unwrap() & 0x20, 0x20);
    write(&domain, DR, Width::Byte, u32::from(b'x')).unwrap();
    assert_eq!(word(3084).load(relaxed), 2);
    // Nonsense in the page stays in the page.
    for count in [0, 1, 1025, 0x8000_0000, u32::MAX] {
        for at in [3072, 3076, 3080, 3084] {
            word(at).store(count, relaxed);
            assert!(read(&domain, DR, Width::Word).is_ok());
            assert!(write(&domain, DR, Width::Word, 1).is_ok());
            assert!(read(&domain, FR, Width::Word).is_ok());
        }
    }
    // The end lets go of the page.
    assert_eq!(super::ring_page(&domain), Some(page.mfn()));
    super::end(&domain);
    assert_eq!(super::ring_page(&domain), None);
    assert_eq!(read(&domain, FR, Width::Word), Ok(0x90));
    for id in [domain.id, daemon.id] {
        registry::remove(id);
    }
}

#[test]
fn a_ring_needs_a_page_and_somebody_else() {
    let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[3]);
    let (other, _vcpu) = guest(Rights::DOM0, NO_TLB, &[]);
    assert_eq!(open_on_ring(&domain, 4, other.id), Err(Errno::Inval));
    assert_eq!(open_on_ring(&domain, 3, domain.id), Err(Errno::Inval));
    assert!(open_on_ring(&domain, 3, other.id).is_ok());
    assert_eq!(open_on_ring(&domain, 3, other.id), Err(Errno::Inval));
    super::end(&domain);
}

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;

use super::{CAPACITY, ENOUGH, OF_DOMAINS, Transmitter};
use crate::platform::uart::testing::{BYTE, KINDS, Kind, Slow};

/// Tells whether the UART's interrupt is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Interrupt {
    Connected,
    Missing,
}

struct Machine {
    slow: Slow,
    line: Transmitter<Slow>,
    interrupt: Interrupt,
    /// The accepted bytes, as they are to be on the line.
    accepted: Vec<u8>,
}

impl Machine {
    /// As it is once guests run.
    fn new(kind: Kind, interrupt: Interrupt) -> Self {
        let (slow, uart) = Slow::new(kind);
        let mut line = Transmitter::new(uart);
        if interrupt == Interrupt::Connected {
            line.enable_interrupt();
        }
        assert!(line.queue_up());
        Self {
            slow,
            line,
            interrupt,
            accepted: Vec::new(),
        }
    }

    fn accept(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\n' {
                self.accepted.push(b'\r');
            }
            self.accepted.push(byte);
        }
    }

    fn say(&mut self, text: &[u8]) {
        self.line.send(text);
        self.accept(text);
    }

    fn domain_says(&mut self, text: &[u8]) -> usize {
        let count = self.line.send_of_domain(text);
        self.accept(&text[..count]);
        count
    }

    /// Transmits as when the UART asks for it, or the timer of one without interrupt has expired.
    fn serve(&mut self) {
        match self.interrupt {
            Interrupt::Connected if self.slow.signals() => {
                self.line.receive(256, |_| panic!("nothing was typed"));
                self.line.drain();
            }
            Interrupt::Missing if self.line.wants_timer() => self.line.drain(),
            _ => {}
        }
    }

    /// Lets everything leave that wants to.
    fn settle(&mut self) {
        // Twice the line's time, and the timer's for each byte where there is no FIFO.
        let interval = if self.interrupt == Interrupt::Missing {
            1_000_000
        } else {
            BYTE / 3
        };
        for _ in 0..self.accepted.len() * 6 + 1000 {
            if self.slow.count() == self.accepted.len() {
                return;
            }
            self.slow.pass(interval);
            self.serve();
        }
    }

    /// Nanoseconds that `f` takes.
    fn time(&mut self, f: impl FnOnce(&mut Self)) -> u64 {
        let begin = self.slow.now();
        f(self);
        self.slow.now() - begin
    }

    fn is_right(&self) -> bool {
        self.slow.sent() == self.accepted
    }
}

#[derive(Clone, Debug)]
enum Op {
    Say(usize),
    DomainSays(usize),
    Serve,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..200usize).prop_map(Op::Say),
        (0..200usize).prop_map(Op::DomainSays),
        Just(Op::Serve),
        (0..40 * BYTE).prop_map(Op::Pass),
        (0..BYTE).prop_map(Op::Pass),
    ]
}

/// How the story ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Nobody says anything more.
    Silence,
    /// The machine is switched off.
    Off,
    /// A panic, with its report.
    Panic,
}

/// Returns the bytes that tell where they were, with a line end now and then.
fn text(count: &mut usize, len: usize) -> Vec<u8> {
    let bytes = (*count..*count + len).map(|n| if n % 37 == 0 { b'\n' } else { n as u8 });
    *count += len;
    bytes.collect()
}

proptest! {
    #[test]
    fn bytes_leave_in_order_and_none_is_lost(
        kind in select(KINDS.as_slice()),
        missing in any::<bool>(),
        ops in vec(op(), 0..60),
        end in select([End::Silence, End::Off, End::Panic].as_slice()),
    ) {
        let interrupt = if missing { Interrupt::Missing } else { Interrupt::Connected };
        let mut machine = Machine::new(kind, interrupt);
        let mut count = 0;
        for op in ops {
            match op {
                Op::Say(len) => machine.say(&text(&mut count, len)),
                Op::DomainSays(len) => {
                    let text = text(&mut count, len);
                    assert_eq!(machine.domain_says(&text), len, "there is room for so little");
                }
                Op::Serve => machine.serve(),
                Op::Pass(ns) => machine.slow.pass(ns),
            }
        }
        match end {
            End::Silence => machine.settle(),
            End::Off => machine.line.flush(),
            End::Panic => {
                machine.line.poll();
                for len in [100, 1, 0, 300] {
                    machine.say(&text(&mut count, len));
                }
                machine.line.flush();
            }
        }
        assert!(machine.is_right(), "{} of {} bytes left", machine.slow.count(), machine.accepted.len());
    }
}

#[test]
fn a_domain_faster_than_the_line_waits_and_loses_nothing() {
    for kind in KINDS {
        for interrupt in [Interrupt::Connected, Interrupt::Missing] {
            let mut machine = Machine::new(kind, interrupt);
            let text: Vec<u8> = (0..OF_DOMAINS * 2).map(|n| n as u8).collect();
            let (mut done, mut refusals) = (0, 0);
            while done < text.len() {
                let end = text.len().min(done + 128);
                let count = machine.domain_says(&text[done..end]);
                if count < end - done {
                    refusals += 1;
                    machine.slow.pass(BYTE);
                }
                done += count;
            }
            assert!(refusals > 1000, "{kind:?}");
            machine.settle();
            assert!(machine.is_right(), "{kind:?} {interrupt:?}");
        }
    }
}

#[test]
fn a_domain_that_fills_its_part_leaves_room_for_the_hypervisor() {
    let mut machine = Machine::new(Kind::Pl011(16), Interrupt::Connected);
    let text = vec![b'd'; CAPACITY as usize];
    machine.domain_says(&text);
    machine.domain_says(&text);
    assert_eq!(machine.domain_says(b"more"), 0);
    assert!(machine.line.has_room());
    machine.say(&vec![b'h'; ENOUGH as usize]);
    assert!(!machine.line.has_room());
    let took = machine.time(|machine| machine.say(&[b'h'; 60 << 10]));
    assert!(took < 1_000_000, "{took}");
    machine.line.flush();
    assert!(machine.is_right());
}

#[test]
fn what_the_hypervisor_says_beyond_the_queue_is_waited_for() {
    for kind in [Kind::Pl011(16), Kind::Ns16550(16), Kind::Exynos(16)] {
        let mut machine = Machine::new(kind, Interrupt::Connected);
        machine.say(&vec![b'h'; CAPACITY as usize + 5000]);
        machine.settle();
        assert!(machine.is_right(), "{kind:?}");
    }
}

#[test]
fn a_line_that_somebody_holds_stops_nothing() {
    for kind in KINDS {
        let mut machine = Machine::new(kind, Interrupt::Connected);
        machine.slow.hold();
        machine.say(&vec![b'x'; 2 * CAPACITY as usize]);
        machine.line.poll();
        machine.say(&[b'x'; 1000]);
        machine.line.flush();
        // A million polls once, and one for each byte.
        let seconds = machine.slow.now() / 1_000_000_000;
        assert!(seconds < 1, "{kind:?}: {seconds} s");
    }
}

/// Returns the paths of `docs/performance.md`, "The console's line", each in nanoseconds: the accesses to the UART alone.
fn masked(kind: Kind) -> Vec<(&'static str, u64)> {
    let full = |interrupt| {
        let mut machine = Machine::new(kind, interrupt);
        machine.domain_says(&vec![b'd'; CAPACITY as usize]);
        machine
    };
    let mut idle = Machine::new(kind, Interrupt::Connected);
    let call = idle.time(|machine| {
        for _ in 0..8 {
            machine.domain_says(&[b'd'; 128]);
        }
    });
    let mut busy = full(Interrupt::Connected);
    let refused = busy.time(|machine| {
        machine.domain_says(&[b'd'; 128]);
    });
    let guest_line = busy.time(|machine| machine.say(&[b'g'; 120]));
    let debug_key = busy.time(|machine| machine.say(&[b'k'; 64 << 10]));
    // The longest of all interrupts until the queue is empty.
    let mut interrupt = 0;
    while busy.slow.count() < busy.accepted.len() {
        busy.slow.pass(BYTE / 10);
        interrupt = interrupt.max(busy.time(Machine::serve));
    }
    let mut without = full(Interrupt::Missing);
    without.slow.pass(1_000_000);
    let timer = without.time(Machine::serve);
    let last_words = full(Interrupt::Connected).time(|machine| machine.line.flush());
    vec![
        ("console_io, 1024 bytes", call),
        ("console_io, no room", refused),
        ("a line that a guest causes", guest_line),
        ("debug key, 64 KiB", debug_key),
        ("the UART's interrupt", interrupt),
        ("timer of a UART without interrupt", timer),
        ("last words, 16 KiB", last_words),
    ]
}

#[test]
fn interrupts_are_masked_for_the_line_only_at_the_end() {
    for kind in KINDS {
        for (path, ns) in masked(kind) {
            println!("{kind:?}: {path}: {} us", ns.div_ceil(1000));
            let is_end = path.starts_with("last words");
            assert_eq!(ns > 150_000, is_end, "{kind:?}: {path}: {ns} ns");
        }
    }
}

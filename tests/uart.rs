//! Holds the UARTs' drivers against QEMU's models of them, on one board for each driver.
//!
//! Nothing runs there: the driver runs here, and its accesses go to the stopped machine through QEMU's debugger interface.
//! (The Exynos UART is in QEMU's Samsung board alone, whose Cortex-A9 has no HYP mode.) Without QEMU the tests say so and
//! show nothing. QEMU's lines take any number of bytes at once; slow ones are in `src/platform/uart/testing.rs`.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use krypton::platform::uart::{Family, Interrupts, Model, Registers, Uart, Width};

/// A board, and where its first UART is.
struct Board {
    name: &'static str,
    model: Model,
    uart: u32,
    /// The word that says which interrupts are pending, and the UART's bit of it.
    pending: (u32, u32),
}

const SMDKC210: Board = Board {
    name: "smdkc210",
    model: Model::Exynos4210,
    uart: 0x1380_0000,
    // The combiner's groups 24 to 27, a byte each; bit 0 of group 26 is UART 0's.
    pending: (0x1044_8068, 1 << 16),
};

const VIRT: Board = Board {
    name: "virt,highmem=off",
    model: Model::Pl011,
    uart: 0x0900_0000,
    // GICD_ISPENDR1: SPI 1.
    pending: (0x0800_0204, 1 << 1),
};

/// Of the boards with this UART, the one whose interrupt controller can be read by a debugger: QEMU's GIC cannot, where it
/// serves several CPUs.
const CUBIEBOARD: Board = Board {
    name: "cubieboard",
    model: Model::Ns16550 {
        shift: 2,
        width: Width::Word,
        family: Family::Plain,
    },
    uart: 0x01C2_8000,
    // Interrupt 1 of Allwinner's controller.
    pending: (0x01C2_0410, 1 << 1),
};

/// Enabled interrupts of the Exynos combiner's groups 24 to 27, a byte each.
const COMBINER_ENABLE: u32 = 0x1044_8060;
const UFSTAT: u32 = 0x18;

/// Bytes above the level at which QEMU's model asks to be read, and within its FIFO of 256.
const BURST: usize = 200;
/// Looks at something that QEMU does in its own time, 10 ms apart.
const LOOKS: u32 = 3000;

struct Machine {
    board: &'static Board,
    qemu: Child,
    debugger: RefCell<UnixStream>,
    /// The other end of the UART's wire.
    wire: RefCell<UnixStream>,
    folder: PathBuf,
}

impl Machine {
    fn start(board: &'static Board) -> Option<Self> {
        let own = format!("krypton-uart-{}-{:x}", std::process::id(), board.uart);
        let folder = std::env::temp_dir().join(own);
        std::fs::create_dir_all(&folder).unwrap();
        let (debugger, wire) = (folder.join("debugger"), folder.join("wire"));
        let (debuggers, wires) = (bind(&debugger), bind(&wire));
        let qemu = Command::new("qemu-system-arm")
            .args(["-M", board.name, "-S", "-display", "none"])
            .args(if board.name == SMDKC210.name {
                ["-smp", "2"].as_slice()
            } else {
                &[]
            })
            .args(["-nic", "none", "-audio", "none"])
            .arg("-gdb")
            .arg(format!("unix:{}", debugger.display()))
            .arg("-serial")
            .arg(format!("unix:{}", wire.display()))
            .spawn();
        let Ok(qemu) = qemu else {
            println!("SKIPPED: no qemu-system-arm; `make setup` installs it");
            return None;
        };
        let machine = Self {
            board,
            qemu,
            wire: RefCell::new(wires.accept().unwrap().0),
            debugger: RefCell::new(debuggers.accept().unwrap().0),
            folder,
        };
        assert_eq!(machine.ask("Qqemu.PhyMemMode:1"), "OK");
        Some(machine)
    }

    /// One exchange of the debugger's protocol: `$<text>#<sum of its bytes>`, each side acknowledging with `+`.
    fn ask(&self, question: &str) -> String {
        let mut debugger = self.debugger.borrow_mut();
        let sum = question.bytes().fold(0, u8::wrapping_add);
        write!(debugger, "${question}#{sum:02x}").unwrap();
        let mut byte = [0];
        let mut next = || {
            debugger.read_exact(&mut byte).unwrap();
            byte[0]
        };
        while next() != b'$' {}
        let mut answer = String::new();
        loop {
            match next() {
                b'#' => break,
                byte => answer.push(byte.into()),
            }
        }
        // The sum.
        next();
        next();
        debugger.write_all(b"+").unwrap();
        answer
    }

    fn read_word(&self, address: u32) -> u32 {
        let answer = self.ask(&format!("m{address:x},4"));
        u32::from_str_radix(&answer, 16).unwrap().swap_bytes()
    }

    fn write_word(&self, address: u32, value: u32) {
        let value = value.swap_bytes();
        assert_eq!(self.ask(&format!("M{address:x},4:{value:08x}")), "OK");
    }

    fn signals(&self) -> bool {
        let (register, bit) = self.board.pending;
        self.read_word(register) & bit != 0
    }

    /// Sends bytes down the wire and waits until the UART has them.
    fn type_bytes(&self, bytes: &[u8]) {
        self.wire.borrow_mut().write_all(bytes).unwrap();
        for _ in 0..LOOKS {
            if self.read_word(self.board.uart + UFSTAT) & 0xFF == bytes.len() as u32 {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} bytes do not arrive", bytes.len());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself, and nothing hangs on the folder.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn bind(path: &PathBuf) -> UnixListener {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).unwrap()
}

impl Registers for &Machine {
    fn read(&self, offset: u32, width: Width) -> u32 {
        assert_eq!(width, Width::Word);
        self.read_word(self.board.uart + offset)
    }

    fn write(&mut self, offset: u32, width: Width, value: u32) {
        assert_eq!(width, Width::Word);
        self.write_word(self.board.uart + offset, value);
    }
}

/// Handles the console's interrupt, and returns the received bytes.
fn drain(uart: &mut Uart<&Machine>) -> Vec<u8> {
    uart.acknowledge();
    std::iter::from_fn(|| uart.get()).collect()
}

/// Sends without and with the transmit interrupt, and looks at the interrupt line.
fn sends(machine: &Machine, uart: &mut Uart<&Machine>) {
    let on_the_wire = |count| {
        let mut sent = vec![0; count];
        machine.wire.borrow_mut().read_exact(&mut sent).unwrap();
        sent
    };
    uart.put_all(b"polled\n");
    uart.flush();
    assert_eq!(on_the_wire(8), b"polled\r\n");
    uart.raise_for(Interrupts::Receive);
    assert_eq!(uart.put_some(b"quiet"), 5);
    assert!(!machine.signals(), "nothing is to be told of sending");
    // QEMU's line takes what it is given before the next access.
    uart.raise_for(Interrupts::ReceiveAndTransmit);
    assert_eq!(uart.put_some(b"told"), 4);
    assert!(machine.signals(), "there is room for more");
    uart.acknowledge();
    uart.raise_for(Interrupts::Receive);
    assert!(!machine.signals(), "there is nothing more to send");
    assert_eq!(on_the_wire(9), b"quiettold");
}

#[test]
fn a_pl011_of_qemu_sends_by_interrupt() {
    let Some(machine) = Machine::start(&VIRT) else {
        return;
    };
    sends(&machine, &mut Uart::new(VIRT.model, &machine));
}

#[test]
fn a_16550_of_qemu_sends_by_interrupt() {
    let Some(machine) = Machine::start(&CUBIEBOARD) else {
        return;
    };
    sends(&machine, &mut Uart::new(CUBIEBOARD.model, &machine));
}

#[test]
fn an_exynos_uart_of_qemu_sends_receives_and_signals() {
    let Some(machine) = Machine::start(&SMDKC210) else {
        return;
    };
    let mut uart = Uart::new(SMDKC210.model, &machine);
    machine.write_word(COMBINER_ENABLE, !0);
    sends(&machine, &mut uart);

    uart.raise_for(Interrupts::None);
    machine.type_bytes(b"typed");
    assert_eq!(drain(&mut uart), b"typed");

    let burst: Vec<u8> = (0..BURST).map(|n| n as u8).collect();
    machine.type_bytes(&burst);
    assert!(!machine.signals(), "the interrupt is masked");
    assert_eq!(drain(&mut uart), burst);

    uart.raise_for(Interrupts::Receive);
    // An interrupt signalled while it was masked comes now: the handler runs once for nothing.
    assert_eq!(drain(&mut uart), b"");
    assert!(!machine.signals(), "there is nothing to read");
    machine.type_bytes(&burst);
    assert!(machine.signals(), "there is much to read");
    assert_eq!(drain(&mut uart), burst);
    // The model raises it again at each byte that leaves more than its level: the handler comes once more.
    assert_eq!(drain(&mut uart), b"");
    assert!(!machine.signals(), "all is read");
}

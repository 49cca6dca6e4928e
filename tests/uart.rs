//! Holds the Exynos UART's driver against QEMU's model of that UART, in its Samsung board `smdkc210`.
//!
//! That board's Cortex-A9 has no HYP mode, so nothing runs on it: the driver runs here, and its accesses go to the stopped
//! machine through QEMU's debugger interface. Without QEMU the test says so and shows nothing.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use krypton::platform::uart::{Model, Registers, Uart, Width};

/// UART 0 of the Exynos 4210.
const UART: u32 = 0x1380_0000;
/// Enabled interrupts of the combiner's groups 24 to 27, a byte each.
const COMBINER_ENABLE: u32 = 0x1044_8060;
/// Those that are pending.
const COMBINER_STATUS: u32 = 0x1044_8068;
/// Bit 0 of group 26 is UART 0's.
const UART_SIGNALS: u32 = 1 << 16;
const UFSTAT: u32 = 0x18;

/// Bytes above the level at which QEMU's model asks to be read, and within its FIFO of 256.
const BURST: usize = 200;
/// Looks at something that QEMU does in its own time, 10 ms apart.
const LOOKS: u32 = 3000;

struct Machine {
    qemu: Child,
    debugger: RefCell<UnixStream>,
    /// The other end of the UART's wire.
    wire: RefCell<UnixStream>,
    folder: PathBuf,
}

impl Machine {
    fn start() -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("krypton-uart-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (debugger, wire) = (folder.join("debugger"), folder.join("wire"));
        let (debuggers, wires) = (bind(&debugger), bind(&wire));
        let qemu = Command::new("qemu-system-arm")
            .args(["-M", "smdkc210", "-smp", "2", "-S", "-display", "none"])
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
        self.read_word(COMBINER_STATUS) & UART_SIGNALS != 0
    }

    /// Sends bytes down the wire and waits until the UART has them.
    fn type_bytes(&self, bytes: &[u8]) {
        self.wire.borrow_mut().write_all(bytes).unwrap();
        for _ in 0..LOOKS {
            if self.read_word(UART + UFSTAT) & 0xFF == bytes.len() as u32 {
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
        self.read_word(UART + offset)
    }

    fn write(&mut self, offset: u32, width: Width, value: u32) {
        assert_eq!(width, Width::Word);
        self.write_word(UART + offset, value);
    }
}

/// What a handler of the console's interrupt does.
fn drain(uart: &mut Uart<&Machine>) -> Vec<u8> {
    uart.acknowledge();
    std::iter::from_fn(|| uart.get()).collect()
}

#[test]
fn an_exynos_uart_of_qemu_sends_receives_and_signals() {
    let Some(machine) = Machine::start() else {
        return;
    };
    let mut uart = Uart::new(Model::Exynos4210, &machine);
    uart.put_text(b"polled\n");
    uart.flush();
    let mut sent = [0; 8];
    machine.wire.borrow_mut().read_exact(&mut sent).unwrap();
    assert_eq!(&sent, b"polled\r\n");

    machine.type_bytes(b"typed");
    assert_eq!(drain(&mut uart), b"typed");

    machine.write_word(COMBINER_ENABLE, !0);
    let burst: Vec<u8> = (0..BURST).map(|n| n as u8).collect();
    machine.type_bytes(&burst);
    assert!(!machine.signals(), "the interrupt is masked");
    assert_eq!(drain(&mut uart), burst);

    uart.enable_receive_interrupt();
    assert!(!machine.signals(), "there is nothing to read");
    machine.type_bytes(&burst);
    assert!(machine.signals(), "there is much to read");
    assert_eq!(drain(&mut uart), burst);
    // The model raises it again at each byte that leaves more than its level: the handler comes once more.
    assert_eq!(drain(&mut uart), b"");
    assert!(!machine.signals(), "all is read");
}

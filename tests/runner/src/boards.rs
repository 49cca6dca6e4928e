//! QEMU's boards other than `virt`: what differs, as data, and the tests on them.
//!
//! Their device trees are those of Debian's kernel package. QEMU adds what it knows (memory, virtio), and this file what a
//! boot loader would: command lines and boot modules. The image is the same one for all; each test prints its SHA-256.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::Machine;
use crate::options::Options;
use crate::session::Echo;
use crate::{Result, build, dom0, project};

/// A board.
#[derive(Debug, PartialEq, Eq)]
pub struct Board {
    pub name: &'static str,
    /// QEMU's `-machine`.
    pub machine: &'static str,
    /// More words for QEMU.
    pub more: &'static [&'static str],
    /// It has virtio over MMIO: for disks and the network.
    pub virtio: bool,
    /// File name of the device tree.
    tree: &'static str,
    /// The hypervisor's console, as `dtuart=` names it.
    pub console: &'static str,
    /// Physical addresses of dom0's kernel and initramfs: in RAM, clear of the hypervisor and of QEMU's device tree.
    pub kernel: u32,
    pub initrd: u32,
}

/// The processor of a real V2P-CA15_A7, which has errata that QEMU's own revision has not.
pub const CORTEX_A15_R2P1: &str = "cortex-a15,midr=0x412fc0f1";
/// The processor of an Exynos 5250, with all that is known to be wrong with a Cortex-A15.
const CORTEX_A15_R0P4: &str = "cortex-a15,midr=0x410fc0f4";

pub static BOARDS: [Board; 13] = [
    // Calxeda's ECX-2000: RAM at 0.
    Board {
        name: "midway",
        machine: "midway",
        more: &["-cpu", "cortex-a15"],
        virtio: false,
        tree: "ecx-2000.dtb",
        console: "/soc/serial@fff36000",
        kernel: 0x1000_0000,
        initrd: 0x1400_0000,
    },
    // Aspeed's AST2600: Cortex-A7 with half of VFP's registers.
    Board {
        name: "ast2600",
        machine: "ast2600-evb",
        more: &["-audio", "none"],
        virtio: false,
        tree: "aspeed-ast2600-evb.dtb",
        console: "serial4",
        kernel: 0x9000_0000,
        initrd: 0x9400_0000,
    },
    // Three of its servers' controllers, by the trees of their own.
    Board {
        name: "rainier",
        machine: "rainier-bmc",
        more: &["-audio", "none"],
        virtio: false,
        tree: "aspeed-bmc-ibm-rainier.dtb",
        console: "serial4",
        kernel: 0x9000_0000,
        initrd: 0x9400_0000,
    },
    Board {
        name: "fuji",
        machine: "fuji-bmc",
        more: &["-audio", "none"],
        virtio: false,
        tree: "aspeed-bmc-facebook-fuji.dtb",
        console: "serial0",
        kernel: 0x9000_0000,
        initrd: 0x9400_0000,
    },
    Board {
        name: "bletchley",
        machine: "bletchley-bmc",
        more: &["-audio", "none"],
        virtio: false,
        tree: "aspeed-bmc-facebook-bletchley.dtb",
        console: "serial4",
        kernel: 0x9000_0000,
        initrd: 0x9400_0000,
    },
    // NXP's i.MX 6UltraLite: one Cortex-A7.
    Board {
        name: "imx6ul",
        machine: "mcimx6ul-evk",
        more: &["-audio", "none"],
        virtio: false,
        tree: "imx6ul-14x14-evk.dtb",
        console: "serial0",
        kernel: 0x9000_0000,
        initrd: 0x9400_0000,
    },
    // NXP's i.MX 7: Cortex-A7, RAM where a Versatile Express has it.
    Board {
        name: "imx7",
        machine: "mcimx7d-sabre",
        more: &["-audio", "none"],
        virtio: false,
        tree: "imx7d-sdb.dtb",
        console: "imx,0x30860000",
        kernel: 0x9000_0000,
        initrd: 0x9400_0000,
    },
    // Allwinner's H3: Cortex-A7, a 16550 as console.
    Board {
        name: "orangepi-pc",
        machine: "orangepi-pc",
        more: &["-audio", "none"],
        virtio: false,
        tree: "sun8i-h3-orangepi-pc.dtb",
        console: "serial0",
        kernel: 0x5000_0000,
        initrd: 0x5400_0000,
    },
    // Allwinner's R40, of Banana Pi M2 Ultra and Berry: Cortex-A7, a 16550 as console.
    Board {
        name: "bpim2u",
        machine: "bpim2u",
        more: &["-audio", "none"],
        virtio: false,
        tree: "sun8i-r40-bananapi-m2-ultra.dtb",
        console: "serial0",
        kernel: 0x5000_0000,
        initrd: 0x5400_0000,
    },
    // Raspberry Pi 2: Cortex-A7 without a GIC, which is refused (refusals.rs).
    Board {
        name: "raspi2b",
        machine: "raspi2b",
        more: &["-audio", "none"],
        virtio: false,
        tree: "bcm2836-rpi-2-b.dtb",
        console: "serial0",
        kernel: 0x1000_0000,
        initrd: 0x1400_0000,
    },
    Board {
        name: "vexpress-a15",
        machine: "vexpress-a15,secure=off,virtualization=on",
        more: &["-cpu", CORTEX_A15_R2P1, "-audio", "none"],
        virtio: true,
        tree: "vexpress-v2p-ca15-tc1.dtb",
        console: "serial0",
        kernel: 0x9000_0000,
        initrd: 0x9200_0000,
    },
    // Entered in secure state, as by a boot monitor.
    Board {
        name: "vexpress-secure",
        machine: "vexpress-a15,secure=on,virtualization=on",
        more: &["-cpu", CORTEX_A15_R0P4, "-audio", "none"],
        virtio: true,
        tree: "vexpress-v2p-ca15-tc1.dtb",
        console: "serial0",
        kernel: 0x9000_0000,
        initrd: 0x9200_0000,
    },
    // The same machine with the tree of a big.LITTLE one, whose Cortex-A7 never come.
    Board {
        name: "vexpress-tc2",
        machine: "vexpress-a15,secure=off,virtualization=on",
        more: &["-cpu", CORTEX_A15_R2P1, "-audio", "none"],
        virtio: true,
        tree: "vexpress-v2p-ca15_a7.dtb",
        console: "serial0",
        kernel: 0x9000_0000,
        initrd: 0x9200_0000,
    },
];

/// A script of tests/dom0 on a board, and what the console must have said until dom0 is up, in this order.
pub struct BoardTest {
    pub board: &'static str,
    pub script: &'static str,
    pub cpus: u32,
    says: &'static [&'static str],
}

pub static TESTS: [BoardTest; 10] = [
    BoardTest {
        board: "midway",
        script: "facts",
        cpus: 2,
        says: &["Brought up 2 CPUs"],
    },
    BoardTest {
        board: "vexpress-a15",
        script: "facts",
        cpus: 2,
        says: &[
            "Brought up 2 CPUs",
            "/dma@7ffb0000 disabled: interrupt 124 is beyond the GIC's * lines",
        ],
    },
    BoardTest {
        board: "vexpress-a15",
        script: "facts",
        cpus: 1,
        says: &["SMP: CPU1 did not start", "Brought up 1 CPUs"],
    },
    BoardTest {
        board: "vexpress-secure",
        script: "facts",
        cpus: 2,
        says: &[
            "Entered in secure state, switched to HYP",
            // QEMU's ACTLR keeps nothing.
            "CPU0: firmware leaves erratum 774769",
            "Brought up 2 CPUs",
        ],
    },
    // Its kernel complains that the tree is of another board, so nothing but the boot and the end is tested.
    BoardTest {
        board: "vexpress-tc2",
        script: "poweroff",
        cpus: 2,
        says: &[
            "arm,cortex-a7 0x100 is another kind than the boot CPU, left out",
            "arm,cortex-a7 0x102 is another kind than the boot CPU, left out",
            "Brought up 2 CPUs",
        ],
    },
    BoardTest {
        board: "vexpress-a15",
        script: "reboot",
        cpus: 2,
        says: &[],
    },
    BoardTest {
        board: "ast2600",
        script: "facts",
        cpus: 2,
        says: &["CPU0: VFP with 16 registers", "Brought up 2 CPUs"],
    },
    BoardTest {
        board: "imx6ul",
        script: "facts",
        cpus: 1,
        says: &["Freescale i.MX6 UltraLite", "Brought up 1 CPUs"],
    },
    BoardTest {
        board: "imx7",
        script: "facts",
        cpus: 2,
        says: &["Brought up 2 CPUs"],
    },
    BoardTest {
        board: "orangepi-pc",
        script: "board",
        cpus: 4,
        says: &["Brought up 4 CPUs"],
    },
];

/// More of them, in a soak.
pub static SOAK: [BoardTest; 13] = [
    soak("vexpress-a15", "domains", 2, &["Brought up 2 CPUs"]),
    soak("bpim2u", "facts", 4, &["Brought up 4 CPUs"]),
    soak("bpim2u", "board", 4, &["Brought up 4 CPUs"]),
    soak("rainier", "board", 2, OF_BMCS),
    soak("fuji", "facts", 2, OF_BMCS),
    soak("bletchley", "facts", 2, OF_BMCS),
    soak("ast2600", "board", 2, OF_BMCS),
    soak("imx6ul", "board", 1, &["Brought up 1 CPUs"]),
    soak("imx7", "board", 2, &["Brought up 2 CPUs"]),
    soak("midway", "board", 2, &["Brought up 2 CPUs"]),
    // By the watchdog. The others by the PSCI that QEMU adds to their trees.
    soak("ast2600", "reboot", 2, OF_BMCS),
    soak("imx7", "reboot", 2, &["Brought up 2 CPUs"]),
    soak("imx6ul", "reboot", 1, &["Brought up 1 CPUs"]),
];

const OF_BMCS: &[&str] = &["CPU0: VFP with 16 registers", "Brought up 2 CPUs"];

const fn soak(
    board: &'static str,
    script: &'static str,
    cpus: u32,
    says: &'static [&'static str],
) -> BoardTest {
    BoardTest {
        board,
        script,
        cpus,
        says,
    }
}

/// Returns the board of that name.
pub fn find(name: &str) -> Result<&'static Board> {
    BOARDS
        .iter()
        .find(|board| board.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = BOARDS.iter().map(|board| board.name).collect();
            format!("no board \"{name}\"; there are: {}", names.join(", "))
        })
}

/// Boots to dom0 on the board and runs its script there.
pub fn test(test: &BoardTest, options: &Options, echo: Echo) -> Result {
    let options = Options {
        board: Some(find(test.board)?),
        cpus: test.cpus,
        ..options.clone()
    };
    build::tell_image(&Machine::new(&options)?.hypervisor)?;
    dom0::test_after(test.says, test.script, &options, echo)
}

impl Board {
    /// Writes the board's tree into `folder`, with the machine's modules and command lines in it.
    pub fn write_tree(&self, machine: &Machine, folder: &Path) -> Result<PathBuf> {
        let tree = folder.join("board.dtb");
        build::write(&tree, &build::read(&project::board_tree(self.tree)?)?)?;
        fill_chosen(&tree, machine, self.kernel, self.initrd)?;
        Ok(tree)
    }
}

/// Writes the machine's command lines and modules, at these addresses, into a device tree.
pub fn fill_chosen(tree: &Path, machine: &Machine, kernel: u32, initrd: u32) -> Result {
    for (node, property, value) in chosen(machine, kernel, initrd)? {
        let mut put = Command::new("fdtput");
        match &value {
            Value::Cells(cells) => put
                .args(["-p", "-t", "u"])
                .arg(tree)
                .args([node, property])
                .args(cells.iter().map(u32::to_string)),
            Value::Strings(strings) => put
                .args(["-p", "-t", "s"])
                .arg(tree)
                .args([node, property])
                .args(strings),
        };
        build::run(&mut put)?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Cells(Vec<u32>),
    Strings(Vec<String>),
}

/// Returns what goes into `/chosen`: node, property, value.
fn chosen(
    machine: &Machine,
    kernel: u32,
    initrd: u32,
) -> Result<Vec<(&'static str, &'static str, Value)>> {
    const CHOSEN: &str = "/chosen";
    const KERNEL: &str = "/chosen/module@1";
    const INITRD: &str = "/chosen/module@2";
    let text = |words: &[&str]| Value::Strings(words.iter().map(|&word| word.into()).collect());
    let mut all = vec![
        (CHOSEN, "#address-cells", Value::Cells(vec![2])),
        (CHOSEN, "#size-cells", Value::Cells(vec![2])),
        (CHOSEN, "xen,xen-bootargs", text(&[&machine.append])),
        (CHOSEN, "xen,dom0-bootargs", text(&[&machine.dom0_append])),
    ];
    for (node, kind, file, address) in [
        (KERNEL, "multiboot,kernel", &machine.kernel, kernel),
        (INITRD, "multiboot,ramdisk", &machine.initrd, initrd),
    ] {
        let Some(file) = file else { continue };
        let size = build::read(file)?.len() as u32;
        all.push((node, "compatible", text(&[kind, "multiboot,module"])));
        all.push((node, "reg", Value::Cells(vec![0, address, 0, size])));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{BOARDS, SOAK, TESTS, find};

    #[test]
    fn every_test_is_on_a_board_that_exists() {
        for test in TESTS.iter().chain(&SOAK) {
            assert!(find(test.board).is_ok(), "{}", test.board);
        }
        assert!(find("none").unwrap_err().contains(BOARDS[0].name));
    }
}

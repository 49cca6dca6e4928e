//! QEMU as people type it: what other tests leave at one value is at another here, and the defaults are QEMU's.

use std::path::Path;
use std::process::Command;

use crate::machine::{INITRD_ADDRESS, InitrdBy, KERNEL_ADDRESS, Machine, Start};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build, dom0, faults};

/// One command line.
pub struct Typed {
    pub name: &'static str,
    /// `-machine`.
    machine: &'static str,
    file: File,
    pub cpus: u32,
    memory_mib: u32,
    initrd: InitrdBy,
    tree: Tree,
    /// Lines that must be on the console, in this order.
    says: &'static [&'static str],
}

/// Which file of `dist`.
enum File {
    Flat,
    Elf,
}

/// The maker of the device tree.
enum Tree {
    Qemu,
    /// A person, out of QEMU's; `-device loader` puts the modules to where it says.
    ByHand,
}

const UP: &str = "dom0 is up: ";
/// With QEMU's defaults, PCI is above 4 GiB and so is a large RAM.
const DEFAULTS: &str = "virt,virtualization=on";

pub const TYPED: [Typed; 9] = [
    Typed {
        name: "krypton.elf",
        machine: DEFAULTS,
        file: File::Elf,
        cpus: 1,
        memory_mib: 1024,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::Qemu,
        says: &[UP],
    },
    Typed {
        name: "-initrd",
        machine: DEFAULTS,
        file: File::Flat,
        cpus: 3,
        memory_mib: 1024,
        initrd: InitrdBy::Option,
        tree: Tree::Qemu,
        says: &["ramdisk", "Brought up 3 CPUs", UP],
    },
    Typed {
        name: "-device loader",
        machine: DEFAULTS,
        file: File::Flat,
        cpus: 2,
        memory_mib: 1024,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::ByHand,
        says: &["Platform: by hand", "Brought up 2 CPUs", UP],
    },
    Typed {
        name: "-smp 5",
        machine: DEFAULTS,
        file: File::Flat,
        cpus: 5,
        memory_mib: 1024,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::Qemu,
        says: &["Brought up 5 CPUs", "smp: Brought up 1 node, 5 CPUs"],
    },
    Typed {
        name: "-smp 6",
        machine: DEFAULTS,
        file: File::Flat,
        cpus: 6,
        memory_mib: 1024,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::Qemu,
        says: &["Brought up 6 CPUs", "smp: Brought up 1 node, 6 CPUs"],
    },
    Typed {
        name: "-smp 7",
        machine: DEFAULTS,
        file: File::Flat,
        cpus: 7,
        memory_mib: 1024,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::Qemu,
        says: &["Brought up 7 CPUs", "smp: Brought up 1 node, 7 CPUs"],
    },
    Typed {
        name: "-m 512",
        machine: "virt,virtualization=on,highmem=off",
        file: File::Flat,
        cpus: 1,
        memory_mib: 512,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::Qemu,
        says: &["RAM: 0000000040000000 - 000000005fffffff", UP],
    },
    Typed {
        name: "-m 6144",
        machine: "virt,gic-version=2,virtualization=on",
        file: File::Flat,
        cpus: 4,
        memory_mib: 6144,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::Qemu,
        says: &[
            "RAM: 0000000040000000 - 00000001bfffffff",
            "Brought up 4 CPUs",
            UP,
        ],
    },
    Typed {
        name: "gic-version=3",
        machine: "virt,gic-version=3,virtualization=on",
        file: File::Flat,
        cpus: 1,
        memory_mib: 1024,
        initrd: InitrdBy::GuestLoader,
        tree: Tree::Qemu,
        says: &["GIC: need GICv2 with virtualization (found arm,gic-v3)"],
    },
];

/// Starts QEMU so, until the last line has come.
pub fn test(typed: &Typed, options: &Options, echo: Echo) -> Result {
    let options = Options {
        cpus: typed.cpus,
        memory_mib: typed.memory_mib,
        ..options.clone()
    };
    let folder = ScratchFolder::new("typed")?;
    let mut machine = Machine::new(&options)?;
    machine.typed = Some(typed.machine);
    machine.initrd_by = typed.initrd;
    machine.append = machine.append.replace("dom0_mem=512M", "dom0_mem=256M");
    if let Tree::ByHand = typed.tree {
        write_tree(&mut machine, &folder.path().join("virt.dtb"))?;
    }
    dom0::give_watchdogs_patience(&mut machine);
    match typed.file {
        File::Flat => build::tell_image(&machine.hypervisor)?,
        File::Elf => machine.hypervisor = build::elf()?,
    }
    let mut session = Session::start(&machine, echo)?;
    for line in typed.says {
        session.expect(line, options.timeout)?;
    }
    Ok(())
}

/// Makes a device tree as docs/boards/qemu-virt.md says, with a name by which it is known again.
fn write_tree(machine: &mut Machine, tree: &Path) -> Result {
    let without_modules = Machine {
        kernel: None,
        initrd: None,
        ..machine.clone()
    };
    faults::dump_tree(&without_modules, tree)?;
    build::run(
        Command::new("fdtput")
            .args(["-t", "s"])
            .arg(tree)
            .args(["/", "model", "by hand"]),
    )?;
    boards::fill_chosen(tree, machine, KERNEL_ADDRESS, INITRD_ADDRESS)?;
    machine.start = Start::Tree(tree.to_owned());
    Ok(())
}

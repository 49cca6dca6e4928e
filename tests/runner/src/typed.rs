//! QEMU as people type it: what other tests leave at one value is at another here, and the defaults are QEMU's.

use crate::machine::{InitrdBy, Machine};
use crate::options::Options;
use crate::session::{Echo, Session};
use crate::{Result, build, dom0};

/// One command line.
pub struct Typed {
    pub name: &'static str,
    /// `-machine`.
    machine: &'static str,
    file: File,
    cpus: u32,
    memory_mib: u32,
    initrd: InitrdBy,
    /// What must be on the console, in this order.
    says: &'static [&'static str],
}

/// Which file of `dist`.
enum File {
    Flat,
    Elf,
}

const UP: &str = "dom0 is up: ";
/// With QEMU's defaults, PCI is above 4 GiB and so is a large RAM.
const DEFAULTS: &str = "virt,virtualization=on";

pub const TYPED: [Typed; 5] = [
    Typed {
        name: "krypton.elf",
        machine: DEFAULTS,
        file: File::Elf,
        cpus: 1,
        memory_mib: 1024,
        initrd: InitrdBy::GuestLoader,
        says: &[UP],
    },
    Typed {
        name: "-initrd",
        machine: DEFAULTS,
        file: File::Flat,
        cpus: 3,
        memory_mib: 1024,
        initrd: InitrdBy::Option,
        says: &["ramdisk", "Brought up 3 CPUs", UP],
    },
    Typed {
        name: "-m 512",
        machine: "virt,virtualization=on,highmem=off",
        file: File::Flat,
        cpus: 1,
        memory_mib: 512,
        initrd: InitrdBy::GuestLoader,
        says: &["RAM: 0000000040000000 - 000000005fffffff", UP],
    },
    Typed {
        name: "-m 6144",
        machine: "virt,gic-version=2,virtualization=on",
        file: File::Flat,
        cpus: 4,
        memory_mib: 6144,
        initrd: InitrdBy::GuestLoader,
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
    let mut machine = Machine::new(&options)?;
    machine.typed = Some(typed.machine);
    machine.initrd_by = typed.initrd;
    machine.append = machine.append.replace("dom0_mem=512M", "dom0_mem=256M");
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

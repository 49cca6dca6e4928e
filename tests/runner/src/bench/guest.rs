//! The benchmark guest (tests/guests/src/bench) in dom0's place, under each hypervisor and under none.

use crate::machine::{Machine, Start};
use crate::options::{Hypervisor, Options};
use crate::project::root;
use crate::session::{Echo, Session};
use crate::{Result, build};

use super::figures::{self, Figures};

/// Where a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    Krypton,
    Xen,
    /// No hypervisor.
    Bare,
}

impl Ground {
    pub const ALL: [Self; 3] = [Self::Xen, Self::Krypton, Self::Bare];

    /// Returns its section of the figures file.
    pub fn section(self) -> &'static str {
        match self {
            Self::Krypton => "krypton",
            Self::Xen => "xen",
            Self::Bare => "bare",
        }
    }

    /// Debian's dom0, or the same kernel and programs without a hypervisor, on one CPU whose time counts instructions.
    pub fn machine(self, options: &Options) -> Result<Machine> {
        let mut machine = Machine::new(&Options {
            hypervisor: match self {
                Self::Xen => Hypervisor::DebianXen,
                Self::Krypton | Self::Bare => Hypervisor::Krypton,
            },
            cpus: 1,
            memory_mib: 2048,
            highmem: false,
            ..options.clone()
        })?;
        machine.counted = true;
        if self == Self::Bare {
            machine.start = Start::Bare;
            machine.virtualization = false;
        }
        Ok(machine)
    }
}

/// A part of the benchmark guest, and the machine it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    One,
    Two,
    Scale,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Scale => "scale",
        }
    }

    /// Returns the machine with the guest in it.
    pub fn machine(self, ground: Ground, options: &Options) -> Result<Machine> {
        let elf = build::guests()?.join("bench");
        let kernel = build::flat_guest(&elf, &root().join("target/guests/bench"))?;
        let mut machine = ground.machine(options)?;
        machine.kernel = Some(kernel);
        machine.initrd = None;
        machine.balloon = true;
        machine.dom0_append = format!("guest=bench part={}", self.name());
        let vcpus = if self == Self::Two { 2 } else { 1 };
        machine.append += &format!(" dom0_max_vcpus={vcpus} dom0_vcpus_pin");
        if self == Self::Scale {
            machine.memory_mib = 1024;
            machine.append = machine.append.replace("dom0_mem=512M", "dom0_mem=256M");
        }
        Ok(machine)
    }

    /// Runs it and reads its figures.
    pub fn measure(self, ground: Ground, options: &Options, echo: Echo) -> Result<Figures> {
        let mut session = Session::start(&self.machine(ground, options)?, echo)?;
        session.expect("done: all rows", options.timeout)?;
        let mut figures = figures::read(session.transcript(), "bench");
        if self != Self::One {
            // Of another machine than the one that the goal is for.
            figures.remove("reset_to_guest");
            figures.remove("empty_loop");
        }
        Ok(figures)
    }
}

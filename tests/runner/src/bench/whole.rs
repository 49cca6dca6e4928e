//! Whole systems: Debian's dom0 boots, makes a domU and measures (tests/dom0/macro.sh); the image's size.

use std::fs;

use crate::options::Options;
use crate::session::{Echo, Session};
use crate::{Result, dom0};

use super::figures::{self, Figures, Store};
use super::guest::Ground;

/// Boots and reads the lines `macro ROW FIGURE`.
pub fn measure(ground: Ground, options: &Options, echo: Echo) -> Result<Figures> {
    let mut machine = ground.machine(options)?;
    machine.disks = dom0::measuring_disks()?;
    machine.dom0_append += " krypton.test=macro";
    if ground == Ground::Bare {
        machine.dom0_append = machine
            .dom0_append
            .replace("console=hvc0 earlycon=xenboot", "console=ttyAMA0");
    } else {
        machine.append += " dom0_max_vcpus=1 dom0_vcpus_pin";
    }
    let mut session = Session::start(&machine, echo)?;
    let end = session.expect("TEST macro ", options.timeout)?;
    if !end.contains("PASS") {
        return Err(session.transcript().to_owned());
    }
    let mut figures = figures::read(session.transcript(), "macro");
    if ground == Ground::Bare {
        return Ok(figures);
    }
    let reset = Store::load()?
        .section(ground.section())
        .get("reset_to_guest")
        .copied();
    if let (Some(reset), Some(kernel)) = (reset, figures.get("kernel_to_init")) {
        // An instruction takes a nanosecond.
        figures.insert("reset_to_init".into(), reset / 1000.0 + kernel);
    }
    Ok(figures)
}

/// Returns the size of the hypervisor's image, as of now.
pub fn image_size(ground: Ground, options: &Options) -> Result<Figures> {
    let image = ground.machine(options)?.hypervisor;
    let size = fs::metadata(&image)
        .map_err(|error| format!("{}: {error}", image.display()))?
        .len();
    Ok(Figures::from([("image_size".into(), size as f64)]))
}

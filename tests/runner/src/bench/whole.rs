//! Whole systems: Debian's dom0 boots, makes a domU and measures (tests/dom0/macro.sh); the image's size.

use std::fs;

use crate::Result;
use crate::options::Options;
use crate::session::{Echo, Session};

use super::figures::{Figures, Store};
use super::guest::Ground;

/// Boots and reads the lines `macro ROW FIGURE`.
pub fn measure(ground: Ground, options: &Options, echo: Echo) -> Result<Figures> {
    let mut machine = ground.machine(options)?;
    machine.disks = crate::dom0::guest_volume()?;
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
    let mut figures = read(session.transcript());
    if ground == Ground::Bare {
        return Ok(figures);
    }
    let image = fs::metadata(&machine.hypervisor)
        .map_err(|error| format!("{}: {error}", machine.hypervisor.display()))?;
    figures.insert("image_size".into(), image.len() as f64);
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

fn read(transcript: &str) -> Figures {
    let figure = |line: &str| {
        let mut words = line.strip_prefix("macro ")?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    transcript.lines().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_figure_is_read_by_its_row() {
        let figures = read("dom0 is up\nmacro xl_create 150000\nmacro\nok macro 3\n");
        assert_eq!(
            figures.into_iter().collect::<Vec<_>>(),
            [("xl_create".to_owned(), 150_000.0)]
        );
    }
}

//! Measures the hypervisor in instructions, beside Debian's Xen and beside none: `make bench` and `make bench-check`.
//!
//! QEMU's `-icount shift=0,sleep=off` makes one instruction one nanosecond of virtual time, so a figure is exact and the
//! same on every machine.
//!
//! | part | what it measures |
//! |---|---|
//! | `guest` | services, by the benchmark guest in dom0's place |
//! | `whole` | whole systems, by a script in Debian's dom0 |
//! | `hardware` | accesses to registers and the GIC, by QEMU's trace |
//! | `latency` | how long interrupts stay masked, by a build that measures it |
//! | `rows`, `figures` | the rows and their goals; the file of what was measured last |
//! | `check` | Krypton against that file |
//! | `report`, `plot` | docs/performance.md and .svg |

mod check;
mod figures;
mod guest;
mod hardware;
mod latency;
mod plot;
mod report;
mod rows;
mod whole;

use std::process::Command;

use crate::Result;
use crate::machine::Machine;
use crate::options::Options;
use crate::session::{Echo, QEMU};

use figures::Store;
use guest::{Ground, Part};

pub use check::check;
pub use hardware::profile;

/// The parts that can be measured alone.
const PARTS: [&str; 5] = ["micro", "scale", "macro", "hardware", "latency"];

/// Measures the parts that the operands name, or all; stores the figures; makes the report of all stored ones.
/// `report` as the only operand measures nothing.
pub fn measure(options: &Options) -> Result {
    let wanted = |part: &str| {
        options.operands.is_empty() || options.operands.iter().any(|word| word == part)
    };
    if let Some(word) = options
        .operands
        .iter()
        .find(|word| *word != "report" && !PARTS.contains(&word.as_str()))
    {
        return Err(format!(
            "bench has no part \"{word}\", but {}",
            PARTS.join(", ")
        ));
    }
    let mut store = Store::load()?;
    for ground in Ground::ALL {
        let section = ground.section();
        if wanted("micro") {
            println!("measuring services: {section}");
            store.update(section, &Part::One.measure(ground, options, Echo::Hide)?);
        }
        if wanted("macro") {
            println!("measuring a whole system: {section}");
            store.update(section, &whole::measure(ground, options, Echo::Hide)?);
        }
        if ground == Ground::Bare {
            continue;
        }
        store.update(section, &whole::image_size(ground, options)?);
        if wanted("micro") {
            store.update(section, &Part::Two.measure(ground, options, Echo::Hide)?);
        }
        if wanted("scale") {
            println!("measuring with many domains: {section}");
            store.update(section, &Part::Scale.measure(ground, options, Echo::Hide)?);
        }
        if wanted("hardware") {
            println!("tracing: {section}");
            for (section, counts) in hardware::measure(ground, options, Echo::Hide)? {
                store.update(&section, &counts);
            }
        }
        store.save()?;
    }
    if wanted("latency") {
        let measured = latency::measure(options, Echo::Hide)?;
        // A path that is no longer taken is no longer shown.
        store.retain(|section, _| !section.starts_with(latency::SECTION));
        for (section, figures) in measured {
            store.update(&section, &figures);
        }
    }
    store.retain(|section, row| section.starts_with(latency::SECTION) || rows::is_known(row));
    store.save()?;
    print!("{}", report::table(&store));
    println!("{}", latency::summary(&store));
    plot::write(&store)?;
    report::write(&store, &conditions(options)?)?;
    latency::judge(&store)?;
    hardware::judge(&store)
}

/// Returns what the figures depend on: QEMU, the compiler, the machine.
fn conditions(options: &Options) -> Result<String> {
    let version = |program: &str| {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .map_err(|error| format!("cannot run {program}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok::<_, String>(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(format!(
        "- {}; {}\n- services: `{}`\n- the same with `dom0_max_vcpus=2` for two vCPUs; with `-m 1024` and `dom0_mem=256M` \
         for many domains\n- bare: `{}`\n- whole systems: `{}`, without `-append`'s words for dom0's vCPUs\n",
        version(QEMU)?,
        version("rustc")?,
        line(&Part::One.machine(Ground::Xen, options)?),
        line(&Part::One.machine(Ground::Bare, options)?),
        line(&Ground::Xen.machine(options)?),
    ))
}

/// QEMU's command line with the files' names alone.
fn line(machine: &Machine) -> String {
    let mut line = QEMU.to_owned();
    for word in machine.arguments() {
        let parts: Vec<String> = word.split(',').map(without_folders).collect();
        let word = parts.join(",");
        let quote = if word.contains(' ') { "\"" } else { "" };
        line += &format!(" {quote}{word}{quote}");
    }
    line
}

/// `kernel=/a/b` as `kernel=b`, `/a/b` as `b`, all else as it is.
fn without_folders(part: &str) -> String {
    let (name, value) = match part.split_once('=') {
        Some((name, value)) => (format!("{name}="), value),
        None => (String::new(), part),
    };
    let value = match value.rsplit_once('/') {
        Some((folders, file)) if value.starts_with('/') && !folders.is_empty() => file,
        _ => value,
    };
    name + value
}

#[cfg(test)]
mod tests {
    use super::without_folders;

    #[test]
    fn a_command_line_tells_no_folders() {
        assert_eq!(without_folders("kernel=/a/b/vmlinuz"), "kernel=vmlinuz");
        assert_eq!(without_folders("/a/b/xen-4.17-armhf"), "xen-4.17-armhf");
        assert_eq!(
            without_folders("console=dtuart dtuart=/pl011@9000000"),
            "console=dtuart dtuart=/pl011@9000000"
        );
    }
}

//! `make report`: one file of text for a person to send who has run a board, or has not got it to run.

use std::fmt::Write;
use std::path::Path;

use crate::options::Options;
use crate::project::root;
use crate::{Result, build, faults, identity, tree};

/// The questions that neither the tree nor the console answers.
const FORM: &str = "\
Board, revision, RAM:
U-Boot: version, configuration, where it came from, `printenv bootm_boot_mode`:
How Krypton was started (package, boot.scr, by hand):
How far it came (silence, a line, dom0's shell, a domU):
What you expected:
";

/// Writes the form, what a boot makes of the tree, the console's log, the tree's source, and which image it was.
pub fn write(options: &Options) -> Result {
    let (dtb, log, ram) = match options.operands.as_slice() {
        [dtb, log] => (dtb, log, &[][..]),
        [dtb, log, ram] => (dtb, log, std::slice::from_ref(ram)),
        _ => {
            return Err(
                "report wants the device tree (/sys/firmware/fdt of dom0 or of plain Linux), the console's log, and \
                 RAM if the tree says none"
                    .into(),
            );
        }
    };
    let source = root().join("target/report.dts");
    build::run(faults::dtc("dtb", "dts").arg("-o").arg(&source).arg(dtb))?;
    let rehearsal = tree::text(
        Path::new(dtb),
        ram.first().map(String::as_str),
        &options.append,
    )?;
    let mut text = String::from(FORM);
    let mut part = |title: &str, body: &str| {
        let _ = write!(text, "\n======== {title}\n{}\n", body.trim_end()); // a String takes all
    };
    let build = identity::variables();
    let build: Vec<_> = build
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    part("this clone", &build.join("\n"));
    part("what a boot makes of the tree", &rehearsal);
    part("console", &lossy(Path::new(log))?);
    part("device tree", &lossy(&source)?);
    let file = root().join("target/report.txt");
    build::write(&file, text.as_bytes())?;
    println!("{}: fill in its first lines, and send it", file.display());
    Ok(())
}

/// Returns a file's text; a serial line may have bytes that are none.
fn lossy(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&build::read(path)?).into_owned())
}

//! xl, as a program that is run.

use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::machine::Toolstack;

/// Debian's xl.
pub struct Xl;

impl Toolstack for Xl {
    fn create(&mut self, config: &str) -> io::Result<()> {
        let file = std::env::temp_dir().join(format!("kmove-{}.cfg", std::process::id()));
        // In a folder that everybody writes to: never a file or link that is there.
        let mut made = File::create_new(&file)?;
        made.write_all(config.as_bytes())?;
        let created = self.run(&["create", "-p", &file.to_string_lossy()]);
        let _ = std::fs::remove_file(&file);
        created
    }

    /// Runs xl; its output goes to that of this program for errors.
    fn run(&mut self, arguments: &[&str]) -> io::Result<()> {
        let words = arguments.join(" ");
        let status = Command::new("xl")
            .args(arguments)
            .stdin(Stdio::null())
            // Standard output may carry the messages of the protocol.
            .stdout(io::stderr())
            .status()
            .map_err(|error| io::Error::other(format!("cannot run xl: {error}")))?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("`xl {words}` failed (above)"))),
        }
    }
}

/// Returns what `xl list -l` prints of a domain.
pub fn described(name: &str) -> io::Result<String> {
    let listed = Command::new("xl")
        .args(["list", "-l", name])
        .output()
        .map_err(|error| io::Error::other(format!("cannot run xl: {error}")))?;
    Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
}

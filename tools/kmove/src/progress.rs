//! A line of progress, where a person looks.

use std::io::{self, IsTerminal, Write};

/// The progress of some pages.
pub struct Progress<'a> {
    what: &'a str,
    of: usize,
    shown: bool,
}

impl<'a> Progress<'a> {
    /// Shows nothing yet.
    pub fn new(what: &'a str, of: usize) -> Self {
        Self {
            what,
            of,
            shown: io::stderr().is_terminal(),
        }
    }

    /// Shows how many pages are through.
    pub fn show(&self, pages: usize) {
        if self.shown {
            let percent = pages * 100 / self.of.max(1);
            let mut to = io::stderr();
            // Nothing depends on it.
            let _ = write!(
                to,
                "\rkmove: {}: {pages} of {} pages, {percent} %\x1b[K",
                self.what, self.of
            );
            let _ = to.flush();
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

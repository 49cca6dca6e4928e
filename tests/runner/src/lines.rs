//! How long the source is: lines of code, comments and tests, by room. Blank lines do not count.

use std::collections::BTreeMap;
use std::fs;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use crate::options::Options;
use crate::{Result, project};

/// Folders with the source of the image.
const CRATES: [&str; 4] = ["src", "arch/src", "dt/src", "boot/efi/src"];

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Lines {
    code: u32,
    comments: u32,
    tests: u32,
}

impl AddAssign for Lines {
    fn add_assign(&mut self, other: Self) {
        self.code += other.code;
        self.comments += other.comments;
        self.tests += other.tests;
    }
}

/// Prints a table of this checkout, or of the one in the folder that the operand names.
pub fn show(options: &Options) -> Result {
    let root = match options.operands.first() {
        Some(folder) => Path::new(folder),
        None => project::root(),
    };
    // Its own path must not look like a test's.
    let root = root.canonicalize();
    let root = root.map_err(|error| format!("no such folder: {error}"))?;
    let mut all = Lines::default();
    println!("| room | code | comments | tests |\n|---|---:|---:|---:|");
    for folder in CRATES {
        for (room, lines) in rooms(&root.join(folder))? {
            let name = match folder {
                "src" => room,
                _ => format!("{}{room}", folder.trim_end_matches("src")),
            };
            print_row(&format!("`{name}`"), lines);
            all += lines;
        }
    }
    print_row("all", all);
    Ok(())
}

fn print_row(name: &str, lines: Lines) {
    println!(
        "| {name} | {} | {} | {} |",
        lines.code, lines.comments, lines.tests
    );
}

/// Returns the lines of each file and folder directly below `folder`, under its name without ending.
fn rooms(folder: &Path) -> Result<BTreeMap<String, Lines>> {
    let mut rooms = BTreeMap::<_, Lines>::new();
    for path in entries(folder)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        *rooms.entry(name.into_owned()).or_default() += count_in(&path)?;
    }
    Ok(rooms)
}

fn count_in(path: &Path) -> Result<Lines> {
    if path.is_dir() {
        let mut all = Lines::default();
        for path in entries(path)? {
            all += count_in(&path)?;
        }
        return Ok(all);
    }
    let name = path.to_string_lossy();
    let (is_rust, is_assembly) = (name.ends_with(".rs"), name.ends_with(".S"));
    if !is_rust && !is_assembly {
        return Ok(Lines::default());
    }
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let is_test = name.contains("/tests/")
        || ["/tests.rs", "/testing.rs", "_tests.rs"]
            .iter()
            .any(|end| name.ends_with(end));
    Ok(count(&text, is_test))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    let entries: std::io::Result<Vec<_>> = read();
    entries.map_err(|error| format!("{}: {error}", folder.display()))
}

/// Counts the lines of a file. Tests within it are what follows `#[cfg(test)]`, to the end of the item.
fn count(text: &str, is_test: bool) -> Lines {
    let mut lines = Lines::default();
    // Braces that are open in the tests' item.
    let mut item: Option<i32> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "#[cfg(test)]" {
            item = Some(0);
        }
        let in_item = item.is_some();
        if let Some(open) = &mut item {
            let count = |letter| line.matches(letter).count() as i32;
            *open += count('{') - count('}');
            if *open <= 0 && line.ends_with([';', '}']) {
                item = None;
            }
        }
        match line.starts_with("//") {
            _ if is_test || in_item => lines.tests += 1,
            true => lines.comments += 1,
            false => lines.code += 1,
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Lines, count};

    #[test]
    fn code_comments_and_tests_are_told_apart() {
        let text = "//! Of it.\n\nuse a;\n/// Does.\nfn f() {}\n#[cfg(test)]\nuse b;\nfn g() {}\n\
            #[cfg(test)]\nmod tests {\n    // Here.\n    fn h() {\n    }\n}\n";
        let expected = Lines {
            code: 3,
            comments: 2,
            tests: 8,
        };
        assert_eq!(count(text, false), expected);
        assert_eq!(count("fn f() {}\n// It.\n", true).tests, 2);
    }
}

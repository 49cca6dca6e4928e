//! The project's own source files as text, for tests of its rules.
#![allow(dead_code)] // each test uses a part

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
pub struct Source {
    /// Its path from the root of the repository, with forward slashes.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// The files below `folder` whose names end in one of `endings`, by path; build output is left out.
pub fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .replace('\\', "/");
        if endings.iter().any(|ending| name.ends_with(ending)) {
            sources.push(Source {
                text: fs::read_to_string(&path).unwrap(),
                path: name,
            });
        }
    }
    assert!(!sources.is_empty(), "no sources in {folder}");
    sources
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            paths.push(path);
        } else if !path.ends_with("target") {
            collect(&path, paths);
        }
    }
}

impl Source {
    /// Returns whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        self.path.contains("/tests/") || matches!(name, "tests.rs" | "testing.rs")
    }

    /// The lines that are code and not for tests, with their numbers; comments are cut off.
    pub fn code(&self) -> Vec<(usize, &str)> {
        let mut lines = Vec::new();
        let mut skip = Skip::No;
        for (n, line) in self.text.lines().enumerate() {
            let code = without_comment(line);
            match &mut skip {
                Skip::No if code.trim() == "#[cfg(test)]" => skip = Skip::Item(0),
                Skip::No => lines.push((n + 1, code)),
                Skip::Item(open) => {
                    *open += code.matches('{').count();
                    *open = open.saturating_sub(code.matches('}').count());
                    if *open == 0 && code.trim_end().ends_with([';', '}']) {
                        skip = Skip::No;
                    }
                }
            }
        }
        lines
    }
}

/// A state of leaving out lines: how many braces are open in the item that they belong to.
enum Skip {
    No,
    Item(usize),
}

fn without_comment(line: &str) -> &str {
    match line.find("//") {
        // An address in a string is no comment.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}

//! The figures file, tests/bench/figures.toml: what was measured last, by hypervisor and row.
//!
//! It is TOML of the simplest kind, sections with numbers, so that a change of a figure is a line of a diff.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::Result;
use crate::project::root;

/// Figures by row.
pub type Figures = BTreeMap<String, f64>;

/// Reads the lines `WORD ROW FIGURE` of a console.
pub fn read(transcript: &str, word: &str) -> Figures {
    let figure = |line: &str| {
        let mut words = line
            .strip_prefix(word)?
            .strip_prefix(' ')?
            .split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    transcript.lines().filter_map(figure).collect()
}

/// All sections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store(BTreeMap<String, Figures>);

const HEADER: &str = "\
# Written by `make bench`, which also makes docs/performance.md of it. `make bench-check` measures Krypton's rows of one
# and two vCPUs and its image's size again, and fails where one is more than 3 % worse than here.
";

fn path() -> PathBuf {
    root().join("tests/bench/figures.toml")
}

impl Store {
    /// Returns what was measured last; nothing, if there is no file.
    pub fn load() -> Result<Self> {
        match fs::read_to_string(path()) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{}: {error}", path().display())),
        }
    }

    pub fn save(&self) -> Result {
        let path = path();
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, self.text()))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Returns a section's figures.
    pub fn section(&self, name: &str) -> Figures {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// Returns the sections whose names begin so.
    pub fn sections(&self, prefix: &str) -> impl Iterator<Item = (&str, &Figures)> {
        self.0
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, figures)| (name.as_str(), figures))
    }

    /// Forgets the figures that `keep` does not want, by section and row.
    pub fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        for (section, figures) in &mut self.0 {
            figures.retain(|row, _| keep(section, row));
        }
        self.0.retain(|_, figures| !figures.is_empty());
    }

    /// Takes new figures of a section; others of it stay.
    pub fn update(&mut self, section: &str, figures: &Figures) {
        let stored = self.0.entry(section.to_owned()).or_default();
        stored.extend(figures.iter().map(|(name, value)| (name.clone(), *value)));
    }

    fn parse(text: &str) -> Result<Self> {
        let mut store = Self::default();
        let mut section = String::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                section = name.to_owned();
                continue;
            }
            let (name, value) = line
                .split_once(" = ")
                .and_then(|(name, value)| Some((name, value.parse().ok()?)))
                .ok_or_else(|| format!("figures.toml, line {number}: \"{line}\" is no figure"))?;
            store
                .0
                .entry(section.clone())
                .or_default()
                .insert(name.to_owned(), value);
        }
        Ok(store)
    }

    fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (section, figures) in &self.0 {
            text += &format!("\n[{section}]\n");
            for (name, value) in figures {
                text += &format!("{name} = {value}\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Store, read};

    #[test]
    fn what_is_written_is_read_again() {
        let mut store = Store::default();
        let figures = Figures::from([
            ("psci_version".into(), 93.5),
            ("reset_to_guest".into(), 4e7),
        ]);
        store.update("krypton", &figures);
        store.update("xen.gic", &Figures::from([("psci_version".into(), 9.0)]));
        assert_eq!(Store::parse(&store.text()), Ok(store));
    }

    #[test]
    fn new_figures_leave_the_others_of_their_section() {
        let mut store = Store::default();
        store.update(
            "xen",
            &Figures::from([("a".into(), 1.0), ("b".into(), 2.0)]),
        );
        store.update("xen", &Figures::from([("b".into(), 3.0)]));
        let expected = Figures::from([("a".into(), 1.0), ("b".into(), 3.0)]);
        assert_eq!(store.section("xen"), expected);
    }

    #[test]
    fn a_line_that_is_no_figure_is_named() {
        let error = Store::parse("[xen]\na = 1\nb = many\n").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_guest_s_figure_is_read_by_its_row() {
        let text = "guest: bench\nbench psci_version 93.0\nbench empty_loop -0.5\nbench\n";
        let figures = read(text, "bench");
        assert_eq!(figures.get("psci_version"), Some(&93.0));
        assert_eq!(figures.get("empty_loop"), Some(&-0.5));
        assert_eq!(figures.len(), 2);
    }

    #[test]
    fn a_system_s_figure_is_read_by_its_row() {
        let text = "dom0 is up\nmacro xl_create 150000\nmacro\nok macro 3\n";
        let figures = read(text, "macro");
        assert_eq!(
            figures.into_iter().collect::<Vec<_>>(),
            [("xl_create".to_owned(), 150_000.0)]
        );
    }
}

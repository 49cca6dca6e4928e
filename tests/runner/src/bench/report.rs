//! The figures as tables: on the terminal, and in docs/performance.md between markers, so that its prose stays.

use std::fs;

use crate::Result;
use crate::project::root;

use super::figures::{Figures, Store};
use super::hardware;
use super::latency;
use super::rows::{Group, ROWS, Row, Unit};

/// The figures of one row.
pub struct Line {
    pub row: &'static Row,
    pub xen: Option<f64>,
    pub krypton: Option<f64>,
    pub bare: Option<f64>,
}

impl Line {
    /// Krypton's figure as a part of Xen's.
    pub fn ratio(&self) -> Option<f64> {
        match (self.xen, self.krypton) {
            (Some(xen), Some(krypton)) if xen > 0.0 => Some(krypton / xen),
            _ => None,
        }
    }

    /// Returns whether the goal is met, where there is one.
    pub fn is_met(&self) -> Option<bool> {
        // A goal has two digits.
        Some(self.ratio()? < self.row.goal? + 0.005)
    }
}

/// Returns the rows of some groups that somebody has a figure for.
pub fn lines(store: &Store, groups: &[Group]) -> Vec<Line> {
    let [xen, krypton, bare] = ["xen", "krypton", "bare"].map(|section| store.section(section));
    let of = |figures: &Figures, row: &Row| figures.get(row.name).copied();
    ROWS.iter()
        .filter(|row| groups.contains(&row.group))
        .map(|row| Line {
            row,
            xen: of(&xen, row),
            krypton: of(&krypton, row),
            // Bare metal has the rows of domUs, too.
            bare: of(&bare, row).or_else(|| bare.get(row.name.strip_prefix("domu_")?).copied()),
        })
        .filter(|line| line.xen.or(line.krypton).is_some())
        .collect()
}

/// Micro rows: those of the plot and of the mean.
pub const MICRO: [Group; 3] = [Group::One, Group::Two, Group::Domains];

/// Returns the geometric mean of the ratios of all micro rows.
pub fn mean(store: &Store) -> Option<f64> {
    let ratios: Vec<f64> = lines(store, &MICRO)
        .iter()
        .filter_map(Line::ratio)
        .filter(|ratio| *ratio > 0.0)
        .collect();
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

/// Returns what the micro rows come to, in a sentence.
pub fn summary(store: &Store) -> String {
    let lines = lines(store, &MICRO);
    let met = lines
        .iter()
        .filter(|line| line.is_met() == Some(true))
        .count();
    let judged = lines.iter().filter(|line| line.is_met().is_some()).count();
    let missed: Vec<&str> = lines
        .iter()
        .filter(|line| line.is_met() == Some(false))
        .map(|line| line.row.name)
        .collect();
    let mean = mean(store).map_or("-".into(), |mean| format!("{mean:.3}"));
    let missed = if missed.is_empty() {
        String::new()
    } else {
        format!(" Above their goals: {}.", missed.join(", "))
    };
    format!(
        "Geometric mean of the {judged} micro rows: {mean} of Xen's instructions (goal 0.25). {met} of {judged} rows \
         reach their goals.{missed}"
    )
}

/// For the terminal.
pub fn table(store: &Store) -> String {
    let groups = [
        Group::One,
        Group::Two,
        Group::Domains,
        Group::Log,
        Group::Control,
        Group::Scale,
        Group::Macro,
    ];
    let mut text = format!(
        "{:<34} {:>13} {:>13} {:>13} {:>7} {:>5}\n",
        "row", "bare", "Xen", "Krypton", "ratio", "goal"
    );
    for line in lines(store, &groups) {
        let [name, bare, xen, krypton, ratio, goal, bar] = cells(&line);
        text +=
            &format!("{name:<34} {bare:>13} {xen:>13} {krypton:>13} {ratio:>7} {goal:>5} {bar}\n");
    }
    text + &summary(store) + "\n"
}

/// Returns the name, bare, Xen, Krypton, ratio, goal, bar.
fn cells(line: &Line) -> [String; 7] {
    let number = |value: Option<f64>| value.map_or("-".into(), |value| show(value, line.row.unit));
    let ratio = line.ratio();
    [
        line.row.name.to_owned(),
        number(line.bare),
        number(line.xen),
        number(line.krypton),
        ratio.map_or("-".into(), |ratio| format!("{ratio:.3}")),
        line.row
            .goal
            .map_or(String::new(), |goal| format!("{goal:.2}")),
        ratio.map_or(String::new(), bar),
    ]
}

/// Xen's figure would be 20 characters long.
fn bar(ratio: f64) -> String {
    const FULL: f64 = 20.0;
    const LONGEST: usize = 30;
    let length = ((ratio * FULL).round() as usize).clamp(1, LONGEST);
    "█".repeat(length)
}

/// Returns a figure with its unit; whole numbers from 1,000 on.
fn show(value: f64, unit: Unit) -> String {
    let number = if value < 1000.0 && value.fract() != 0.0 {
        format!("{value:.1}")
    } else {
        grouped(value.round() as u64)
    };
    match unit {
        Unit::Instructions | Unit::Count => number,
        Unit::Microseconds => format!("{} µs", grouped(value.round() as u64)),
        Unit::Kib => format!("{number} KiB"),
        Unit::Bytes => format!("{number} B"),
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts the tables into docs/performance.md.
pub fn write(store: &Store, conditions: &str) -> Result {
    let path = root().join("docs/performance.md");
    let failed = |error| format!("{}: {error}", path.display());
    let mut text = fs::read_to_string(&path).map_err(failed)?;
    let parts = [
        ("conditions", conditions.to_owned()),
        ("summary", summary(store) + "\n"),
        ("one", markdown(store, Group::One)),
        ("two", markdown(store, Group::Two)),
        ("domains", markdown(store, Group::Domains)),
        ("log", markdown(store, Group::Log)),
        ("control", markdown(store, Group::Control)),
        ("scale", markdown(store, Group::Scale)),
        ("macro", markdown(store, Group::Macro)),
        ("hardware", hardware::markdown(store)),
        ("latency", latency::markdown(store)),
    ];
    for (name, content) in parts {
        text = replace(&text, name, &content)?;
    }
    fs::write(&path, text).map_err(failed)
}

fn markdown(store: &Store, group: Group) -> String {
    let mut text = "| row | what | bare | Xen | Krypton | ratio | goal | |\n|---|---|--:|--:|--:|--:|--:|---|\n".to_owned();
    for line in lines(store, &[group]) {
        let [name, bare, xen, krypton, ratio, goal, bar] = cells(&line);
        let what = line.row.what;
        text += &format!(
            "| `{name}` | {what} | {bare} | {xen} | {krypton} | {ratio} | {goal} | {bar} |\n"
        );
    }
    text
}

/// Replaces what stands between the lines `<!-- NAME: by make bench -->` and `<!-- end -->`.
fn replace(text: &str, name: &str, content: &str) -> Result<String> {
    const END: &str = "<!-- end -->";
    let begin = format!("<!-- {name}: by make bench -->\n");
    let missing = || format!("docs/performance.md has no part \"{}\"", begin.trim());
    let start = text.find(&begin).ok_or_else(missing)? + begin.len();
    let end = start + text[start..].find(END).ok_or_else(missing)?;
    Ok(format!("{}{content}{}", &text[..start], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::{Figures, Store, bar, grouped, mean, replace, root, summary};

    fn store(rows: &[(&str, f64, f64)]) -> Store {
        let mut store = Store::default();
        for (name, xen, krypton) in rows {
            store.update("xen", &Figures::from([((*name).into(), *xen)]));
            store.update("krypton", &Figures::from([((*name).into(), *krypton)]));
        }
        store
    }

    #[test]
    fn the_mean_is_geometric_and_leaves_out_what_is_not_micro() {
        let store = store(&[
            ("psci_version", 100.0, 10.0),
            ("gicd_read_typer", 100.0, 40.0),
            ("cp15_idpfr0_read", 1.0, 1.0),
        ]);
        assert!((mean(&store).unwrap() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn rows_above_their_goals_are_named() {
        let text = summary(&store(&[
            ("psci_version", 100.0, 10.0),
            ("gicd_read_typer", 100.0, 40.0),
        ]));
        assert!(text.contains("1 of 2 rows"), "{text}");
        assert!(
            text.contains("Above their goals: gicd_read_typer."),
            "{text}"
        );
    }

    #[test]
    fn only_the_part_between_its_markers_is_replaced() {
        let text = "a\n<!-- x: by make bench -->\nold\n<!-- end -->\nb\n";
        let expected = "a\n<!-- x: by make bench -->\nnew\n<!-- end -->\nb\n";
        assert_eq!(replace(text, "x", "new\n").as_deref(), Ok(expected));
        assert!(replace(text, "y", "new\n").is_err());
    }

    /// A name of the prose: a file, alone or with what is in it (`src/file.rs`: `function`).
    #[test]
    fn what_the_document_points_at_exists() {
        let read = |path: &str| std::fs::read_to_string(root().join(path));
        let text = read("docs/performance.md").unwrap();
        let words: Vec<&str> = text.split('`').collect();
        let mut files = 0;
        // Every other one is between backquotes.
        for (index, word) in words.iter().enumerate().skip(1).step_by(2) {
            let is_path = ["src/", "arch/", "tests/", "docs/"]
                .iter()
                .any(|folder| word.starts_with(folder));
            if !is_path {
                continue;
            }
            assert!(root().join(word).exists(), "there is no {word}");
            files += 1;
            if words[index + 1] == ": " {
                let name = words[index + 2];
                assert!(read(word).unwrap().contains(name), "{word} has no {name}");
            }
        }
        assert!(files > 20, "{files}");
    }

    #[test]
    fn numbers_and_bars_are_readable() {
        assert_eq!(grouped(270_540_000), "270,540,000");
        assert_eq!(grouped(42), "42");
        assert_eq!(bar(0.5).chars().count(), 10);
        assert_eq!(bar(0.001).chars().count(), 1);
    }
}

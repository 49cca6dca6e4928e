//! No circle of imports between the files of a crate: whoever understands a file needs those that it imports, and no others.
//!
//! A file that uses its own parts (`mod part;`) is the sum of them, and may be used by them; that is no circle. An import of
//! a name that is re-exported counts for the file that the name comes from.

#[path = "support/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path in the crate.
type Module = Vec<String>;
/// For each module the modules that it imports from.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_files_import_each_other_in_a_circle() {
    for folder in ["src", "arch/src", "dt/src", "boot/efi/src"] {
        let crate_ = Crate::read(folder);
        let imports = crate_.imports();
        assert!(!imports.is_empty(), "{folder}");
        let circle = find_circle(&imports).map(|circle| {
            let names: Vec<_> = circle.iter().map(|module| module.join("/")).collect();
            names.join(" -> ")
        });
        assert_eq!(circle, None, "{folder}");
    }
}

/// The modules of a crate, and where the names come from that they re-export.
struct Crate {
    code: BTreeMap<Module, String>,
    re_exports: BTreeMap<(Module, String), Module>,
}

impl Crate {
    fn read(folder: &str) -> Self {
        let mut code = BTreeMap::new();
        for file in source::files(folder, &[".rs"]) {
            if !file.is_test() && !file.path.ends_with("_tests.rs") {
                let lines: Vec<_> = file.code().into_iter().map(|(_, line)| line).collect();
                let path = file.path.strip_prefix(folder).unwrap_or_default();
                code.insert(module_of(path), lines.join("\n"));
            }
        }
        Self::of(code)
    }

    fn of(code: BTreeMap<Module, String>) -> Self {
        let mut re_exports = BTreeMap::new();
        for (module, text) in &code {
            for (_, mut path) in uses(text).into_iter().filter(|(public, _)| *public) {
                let Some(name) = path.last().cloned() else {
                    continue;
                };
                if !matches!(path[0].as_str(), "crate" | "self" | "super") {
                    path.insert(0, "self".to_owned());
                }
                re_exports.insert((module.clone(), name), path);
            }
        }
        Self { code, re_exports }
    }

    fn imports(&self) -> Imports {
        let of = |module: &Module, text: &str| {
            let private = uses(text).into_iter().filter(|(public, _)| !public);
            let paths = private.map(|(_, path)| path).chain(paths(text));
            let mut found: BTreeSet<_> = paths
                .filter_map(|path| self.resolve(module, &path, 0))
                .collect();
            // Not itself, and not its parts.
            found.retain(|other| !other.starts_with(module));
            (module.clone(), found)
        };
        self.code
            .iter()
            .map(|(module, text)| of(module, text))
            .collect()
    }

    /// Returns the module that `path` leads to, as `from` writes it.
    fn resolve(&self, from: &Module, path: &[String], depth: u32) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            _ => return None,
        }
        while let [word, behind @ ..] = rest {
            let mut next = at.clone();
            next.push(word.clone());
            if !self.code.contains_key(&next) {
                break;
            }
            (at, rest) = (next, behind);
        }
        let name = rest.first().cloned().unwrap_or_default();
        match self.re_exports.get(&(at.clone(), name)) {
            Some(source) if depth < 4 => self.resolve(&at, source, depth + 1),
            _ => self.code.contains_key(&at).then_some(at),
        }
    }
}

/// `/dom0/kernel.rs` is `dom0`, `kernel`; `/vgic/mod.rs` is `vgic`.
fn module_of(path: &str) -> Module {
    let path = path.trim_start_matches('/').trim_end_matches(".rs");
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// Returns the paths that are imported or re-exported, which is said first.
fn uses(text: &str) -> Vec<(bool, Module)> {
    let mut found = Vec::new();
    for item in text.split(';') {
        // Text before an item ends in a brace or a line.
        let line = item
            .rfind("use ")
            .filter(|at| item[..*at].trim_end_matches("pub ").ends_with(['\n', ' ']) || *at == 0);
        let Some(at) = line else { continue };
        let head = item[..at].lines().last().unwrap_or_default().trim_start();
        if head.is_empty() || head.starts_with("pub") {
            let tree: String = item[at + 4..].split_whitespace().collect();
            flatten(&[], &tree, &mut |path| {
                found.push((head.starts_with("pub"), path));
            });
        }
    }
    found
}

/// Calls `see` with each path of a tree of imports, whose blanks have been taken out.
fn flatten(prefix: &[String], tree: &str, see: &mut impl FnMut(Module)) {
    let (head, group) = match tree.find('{') {
        Some(at) => (&tree[..at], Some(&tree[at + 1..tree.len() - 1])),
        None => (tree, None),
    };
    let words = head.split("::").filter(|word| !word.is_empty());
    let path: Module = prefix
        .iter()
        .cloned()
        .chain(words.map(str::to_owned))
        .collect();
    let Some(group) = group else {
        let path = path
            .into_iter()
            .filter(|word| word != "self" || prefix.is_empty());
        return see(path.collect());
    };
    let mut depth = 0;
    let mut start = 0;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                flatten(&path, &group[start..at], see);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < group.len() {
        flatten(&path, &group[start..], see);
    }
}

/// Returns the paths from `crate` or `super` that stand in the code itself.
fn paths(text: &str) -> Vec<Module> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let line = text[..at].lines().last().unwrap_or_default();
            if text[..at].ends_with(|letter: char| is_name(letter) || letter == ':')
                || line.contains("use ")
            {
                continue;
            }
            let path = text[at..].split(|letter: char| !is_name(letter) && letter != ':');
            let path = path.into_iter().next().unwrap_or_default();
            found.push(
                path.split("::")
                    .filter(|word| !word.is_empty())
                    .map(str::to_owned)
                    .collect(),
            );
        }
    }
    found
}

/// Returns a circle, if there is one: each module imports from the next one, and the last from the first.
fn find_circle(imports: &Imports) -> Option<Vec<Module>> {
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}

fn visit(
    module: &Module,
    imports: &Imports,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if let Some(start) = way.iter().position(|earlier| earlier == module) {
        return Some(way[start..].to_vec());
    }
    if done.contains(module) {
        return None;
    }
    way.push(module.clone());
    let circle = imports
        .get(module)
        .into_iter()
        .flatten()
        .find_map(|next| visit(next, imports, way, done));
    way.pop();
    done.insert(module.clone());
    circle
}

#[test]
fn a_circle_is_found_through_groups_and_re_exports() {
    let module = |name: &str| module_of(&format!("/{name}.rs"));
    let of = |files: &[(&str, &str)]| {
        let files = files
            .iter()
            .map(|(name, text)| (module(name), (*text).to_owned()));
        find_circle(&Crate::of(files.collect()).imports())
    };
    let room = (
        "room/mod",
        "pub mod a;\nmod b;\npub use b::Name;\nuse a::X;\n",
    );
    let uses_b = "use super::{\n    Other, Name,\n};\n";
    assert_eq!(
        of(&[room, ("room/a", uses_b), ("room/b", "use core::fmt;\n")]),
        None
    );
    let uses_a = "fn f() {\n    crate::room::a::f();\n}\n";
    assert_eq!(
        of(&[room, ("room/a", uses_b), ("room/b", uses_a)]),
        Some(vec![module("room/a"), module("room/b")])
    );
    assert_eq!(
        of(&[
            room,
            ("room/a", "use crate::b;\n"),
            ("b", "use crate::room::a::{f, g};\n")
        ]),
        Some(vec![module("b"), module("room/a")])
    );
}

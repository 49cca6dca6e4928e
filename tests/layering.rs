//! Checks the imports of `src/` (docs/architecture.md): Rust allows cycles between the modules of a crate, this does not.
//!
//! Each room (a file or folder of `src/`) is on one layer and may use every room of the layers below; rooms of one layer
//! do not know each other. Some rooms may use less than that, to stay pure: they are in [`NARROW`].

#[path = "support/source.rs"]
mod source;

use source::Source;

/// The rooms, lowest layer first.
const LAYERS: &[&[&str]] = &[
    // Words that everybody uses.
    &[
        "abi", "cmdline", "error", "id", "identity", "pqueue", "sync",
    ],
    // Leaf rooms.
    &["cpu", "latency", "platform", "time"],
    &["console"],
    &["log", "machine"],
    // State rooms: rules without a machine. They answer with values.
    &["emulate", "event", "grant", "mem", "sched", "vgic"],
    // One vCPU, and making it run.
    &["save", "vcpu"],
    // One domain: its parts, put together.
    &["domain"],
    // Things of several domains, or of a domain and the machine.
    &["irq", "loader", "options", "panic", "policy", "wallclock"],
    &["debug_keys", "dom0"],
    // Hypercalls: their arguments, control of domains and of the machine, the rest and the table of all.
    &["call", "passthrough"],
    &["control"],
    &["hypercall", "partition"],
    &["trap"],
];

/// Rooms, and files of rooms, that may use only what is named.
const NARROW: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("cmdline", &[]),
    ("error", &[]),
    ("id", &[]),
    ("identity", &[]),
    ("pqueue", &[]),
    ("sync", &[]),
    ("platform", &[]),
    ("cpu", &[]),
    ("time", &["id", "pqueue", "sync"]),
    ("emulate", &["id"]),
    ("event", &["abi", "error", "id"]),
    ("grant", &["abi", "error", "id"]),
    ("loader/kernel", &[]),
    ("loader/nodes", &["platform"]),
    ("loader/place", &["platform"]),
    ("mem", &["id", "sync"]),
    ("partition/layout", &["domain", "id", "loader", "platform"]),
    ("partition/partial", &["domain", "loader", "platform"]),
    ("partition/plan", &["domain", "id", "loader", "platform"]),
    ("partition/tree", &["domain", "id", "loader", "platform"]),
    ("passthrough/rule", &["dom0", "error", "id", "platform"]),
    ("save", &["id", "vgic"]),
    ("sched", &["id", "pqueue", "sync", "time"]),
    ("vgic", &["id"]),
    ("dom0/device_tree", &["loader", "platform"]),
    ("dom0/devices", &["platform"]),
    ("dom0/layout", &["loader", "platform"]),
    ("dom0/plan", &["loader", "platform"]),
    ("dom0/selection", &["platform"]),
];

/// Macros are exported at the root of the crate, wherever they are.
const MACROS: &[(&str, &str)] = &[
    ("abi_constants", "abi"),
    ("abi_struct", "abi"),
    ("guest_warn", "log"),
];

/// One use of a room by another.
struct Import {
    from: String,
    to: String,
    place: String,
}

#[test]
fn imports_go_down_the_layers() {
    let wrong: Vec<_> = imports()
        .iter()
        .filter(|import| !is_allowed(import))
        .map(|import| format!("{}: {} uses {}", import.place, import.from, import.to))
        .collect();
    assert!(
        wrong.is_empty(),
        "imports against the layers:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_room_has_a_layer() {
    for import in imports() {
        for name in [room(&import.from), &import.to] {
            assert!(
                layer(name).is_some(),
                "{}: {name} has no place in LAYERS",
                import.place
            );
        }
    }
    for file in sources() {
        let name = name_of(&file.path);
        assert!(
            layer(room(&name)).is_some(),
            "{} has no place in LAYERS",
            file.path
        );
    }
}

#[test]
fn the_abi_knows_only_the_architecture_and_its_layouts() {
    let mut files = sources();
    files.retain(|file| file.path.starts_with("src/abi/"));
    assert_crates(&files, &["armv7", "core", "crate", "super", "zerocopy"]);
}

/// It allocates nothing, so that code without an allocator can use it.
#[test]
fn the_reader_of_device_trees_knows_nothing_else() {
    let mut files = source::files("dt/src", &[".rs"]);
    files.retain(|file| !file.is_test());
    for module in ["blob", "tree", "writer"] {
        let path = format!("dt/src/{module}.rs");
        assert!(files.iter().any(|file| file.path == path), "{path}");
    }
    assert_crates(&files, &["core", "crate", "blob", "tree", "writer"]);
}

/// Refuses imports from any other crate.
fn assert_crates(files: &[Source], allowed: &[&str]) {
    for file in files {
        for (n, line) in file.code() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let Some(path) = line.strip_prefix("use ") else {
                continue;
            };
            let krate = path.split([':', ';', ' ']).next().unwrap_or("");
            assert!(allowed.contains(&krate), "{}:{n}: uses {krate}", file.path);
        }
    }
}

/// The files of the library: main.rs and src/boot/ are the image's, above all rooms.
fn sources() -> Vec<Source> {
    let mut files = source::files("src", &[".rs"]);
    files.retain(|file| {
        let is_image = file.path == "src/main.rs" || file.path.starts_with("src/boot/");
        !is_image && file.path != "src/lib.rs" && !file.is_test()
    });
    files
}

fn imports() -> Vec<Import> {
    let mut imports = Vec::new();
    for file in sources() {
        let from = name_of(&file.path);
        for (n, line) in file.code() {
            for to in rooms_in(line) {
                if to != room(&from) {
                    imports.push(Import {
                        from: from.clone(),
                        to,
                        place: format!("{}:{n}", file.path),
                    });
                }
            }
        }
    }
    imports
}

/// `src/dom0/kernel.rs` is `dom0/kernel`, `src/dom0/device_tree/nodes.rs` is `dom0/device_tree`, `src/dom0/mod.rs` is
/// `dom0`.
fn name_of(path: &str) -> String {
    let name = path
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod");
    name.split('/').take(2).collect::<Vec<_>>().join("/")
}

fn room(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&room))
}

fn is_allowed(import: &Import) -> bool {
    let narrow = |name: &str| {
        NARROW
            .iter()
            .find(|(narrow, _)| *narrow == name)
            .map(|(_, allowed)| *allowed)
    };
    if let Some(allowed) = narrow(&import.from).or_else(|| narrow(room(&import.from))) {
        return allowed.contains(&import.to.as_str());
    }
    layer(room(&import.from)) > layer(&import.to)
}

/// The rooms that a line names as `crate::room` or `crate::{room, ..}`.
fn rooms_in(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in line.match_indices("crate::") {
        let rest = &line[at + word.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(members(group)),
            None => found.push(first_word(rest)),
        }
    }
    found.retain(|name| !name.is_empty() && name != "self");
    for name in &mut found {
        if let Some((_, room)) = MACROS
            .iter()
            .find(|(name_of_macro, _)| name_of_macro == name)
        {
            *name = (*room).to_owned();
        }
    }
    found
}

/// The first words of the members of a group, without those of groups inside it.
fn members(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut start = 0;
    let mut found = Vec::new();
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (letter == ',' && depth == 1) || depth == 0 {
            found.push(first_word(group[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn first_word(path: &str) -> String {
    path.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

#[test]
fn imports_are_found_in_all_their_forms() {
    assert_eq!(rooms_in("use crate::mem::p2m;"), ["mem"]);
    assert_eq!(
        rooms_in("use crate::{guest_warn, vgic::{A, B}, id};"),
        ["log", "vgic", "id"]
    );
    assert_eq!(
        rooms_in("    crate::domain::domain.kick(crate::id::X)"),
        ["domain", "id"]
    );
    assert_eq!(rooms_in("let n = 1;"), [""; 0]);
    assert_eq!(name_of("src/mem/p2m/pool.rs"), "mem/p2m");
    assert_eq!(name_of("src/vgic/mod.rs"), "vgic");
    assert_eq!(name_of("src/irq.rs"), "irq");
}

//! `unsafe` is in `arch/` only, but for the image's entry points and what calls UEFI firmware, and each use says why it is
//! sound.

#[path = "support/source.rs"]
mod source;

use source::Source;

/// Lines above an `unsafe` in which its comment is looked for: the comment is above the statement, which may be long.
const REACH: usize = 10;
/// How the keyword is used.
const FORMS: [&str; 6] = [
    "unsafe {",
    "unsafe fn",
    "unsafe impl",
    "unsafe trait",
    "unsafe extern",
    "unsafe(",
];

#[test]
fn the_libraries_forbid_unsafe_code() {
    for folder in ["src", "boot/efi/src", "dt/src"] {
        let lib = source::files(folder, &[&format!("{folder}/lib.rs")]);
        assert!(
            lib[0]
                .code()
                .iter()
                .any(|(_, line)| *line == "#![forbid(unsafe_code)]"),
            "{folder}"
        );
    }
}

#[test]
fn only_the_image_has_unsafe_code_beside_arch() {
    for file in source::files("src", &[".rs"]) {
        let is_image = file.path == "src/main.rs" || file.path.starts_with("src/boot/");
        for (n, line) in file.code() {
            let is_used = FORMS.iter().any(|form| line.contains(form));
            assert!(is_image || !is_used, "{}:{n}: unsafe", file.path);
        }
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    for folder in ["arch", "boot", "dt", "src"] {
        for file in source::files(folder, &[".rs"]) {
            wrong.extend(unexplained(&file));
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe without a reason:\n{}",
        wrong.join("\n")
    );
}

/// Blocks and implementations without a `SAFETY:` comment, functions without a `# Safety` section.
fn unexplained(file: &Source) -> Vec<String> {
    let all: Vec<&str> = file.text.lines().collect();
    let mut wrong = Vec::new();
    for (number, line) in file.code() {
        let word = if line.contains("unsafe {") || line.contains("unsafe impl") {
            "SAFETY:"
        } else if line.contains("unsafe fn") && line.contains("pub") {
            "# Safety"
        } else {
            continue;
        };
        let above = &all[number.saturating_sub(REACH + 1)..number];
        if !above.iter().any(|line| line.contains(word)) {
            wrong.push(format!("{}:{number}: no {word}", file.path));
        }
    }
    wrong
}

//! One room, one idea: no file of code is longer than 800 lines, and one over 500 says why in its header. No comment begins
//! with half a question.

#[path = "support/source.rs"]
mod source;

/// Lines that no file exceeds.
const LIMIT: usize = 800;
/// Lines above which a file's header says why it is not two, in a sentence with these words.
const LONG: usize = 500;
const REASON: &str = "one file because";

#[test]
fn no_file_is_too_long() {
    let mut wrong = Vec::new();
    for folder in ["arch", "boot", "dt", "src", "tests"] {
        for file in source::files(folder, &[".rs", ".S"]) {
            let lines = file.text.lines().count();
            if lines > LIMIT {
                wrong.push(format!("{}: {lines} lines", file.path));
            }
            let mut header = file.text.lines().take_while(|line| line.starts_with("//"));
            if lines > LONG && !header.any(|line| line.contains(REASON)) {
                println!(
                    "{}: {lines} lines; its header does not say \"{REASON}\"",
                    file.path
                );
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "longer than {LIMIT} lines:\n{}",
        wrong.join("\n")
    );
}

/// "Whether it is" and "What it does" are no sentences: a comment says what is returned, held or done.
#[test]
fn no_comment_begins_with_half_a_question() {
    let mut wrong = Vec::new();
    for folder in ["arch", "boot", "dt", "src", "tests", "tools"] {
        let files = source::files(folder, &[".rs"]);
        for file in files {
            let mut before = "";
            for (n, line) in file.text.lines().map(str::trim).enumerate() {
                let text = line.strip_prefix("//").unwrap_or("");
                let text = text.trim_start_matches(['/', '!']).trim_start();
                let is_first = !before.starts_with("//");
                if is_first
                    && ["Whether ", "What "]
                        .iter()
                        .any(|word| text.starts_with(word))
                {
                    wrong.push(format!("{}:{}: {line}", file.path, n + 1));
                }
                before = line;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

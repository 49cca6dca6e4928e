//! A build's identity, which the image prints: compiler, commit and the commit's date, never the time or place of the build.
//! src/identity.rs takes them from the environment; cargo builds anew when they change.

use std::path::Path;
use std::process::Command;

use crate::project::root;

/// Returns the variables for a build of this clone. What is set already stays, for builds from an archive; what nobody knows
/// is left out.
pub fn variables() -> Vec<(&'static str, String)> {
    let (date, changeset) = commit(root()).unzip();
    [
        ("KRYPTON_RUSTC", compiler()),
        ("KRYPTON_DATE", date),
        ("KRYPTON_CHANGESET", changeset),
    ]
    .into_iter()
    .filter(|(name, _)| std::env::var_os(name).is_none())
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// `rustc 1.95.0 (59807616e 2026-04-14)`.
fn compiler() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    output(Command::new(rustc).current_dir(root()).arg("--version"))
}

/// Returns when HEAD was committed, and the same with its hash, as Xen's banner has them. Nothing outside of a clone.
fn commit(folder: &Path) -> Option<(String, String)> {
    let git = |arguments: &[&str]| {
        // git's own variables would lead it elsewhere, as in a hook.
        output(
            Command::new("git")
                .current_dir(folder)
                .env_remove("GIT_DIR")
                .env_remove("GIT_WORK_TREE")
                .env_remove("GIT_INDEX_FILE")
                .env("TZ", "UTC")
                .args(arguments),
        )
    };
    // An unpacked archive may lie within somebody else's clone.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != folder.canonicalize().ok()? {
        return None;
    }
    let date = git(&[
        "log",
        "-1",
        "--format=%cd",
        "--date=format-local:%a %b %e %H:%M:%S UTC %Y",
    ])?;
    // A fixed length: git's own choice depends on how much a clone holds.
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let mark = if changes.is_empty() { "" } else { "-dirty" };
    Some((date.clone(), format!("{date} git:{hash}{mark}")))
}

/// Returns what a command prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{commit, compiler};

    #[test]
    fn a_folder_that_is_no_clone_has_no_commit() {
        assert_eq!(commit(&std::env::temp_dir()), None);
        assert_eq!(commit(&crate::project::root().join("tests")), None);
    }

    #[test]
    fn the_compiler_fits_into_the_hypercall_answer() {
        let compiler = compiler().unwrap();
        assert!(compiler.starts_with("rustc ") && compiler.len() < 64);
    }
}

//! The targets of tests/fuzz under libFuzzer, which is guided by coverage.
//!
//! LLVM's instrumentation is in the stable compiler too, which wants to be told that it is meant (`RUSTC_BOOTSTRAP`). libFuzzer
//! itself is C++ in the crate `libfuzzer-sys`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::options::Options;
use crate::project::{self, root};
use crate::{Result, build};

/// Flags of all code in the programs.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions";

/// Seconds for each target, unless `--seconds` says otherwise.
const SECONDS: u32 = 60;

/// Fuzzes the targets that are named, or all, one after the other.
///
/// Inputs that reach something new go to target/fuzz/TARGET, where the next run goes on. With `--keep`, the fewest of them that
/// reach as much become the target's small corpus, which `cargo test` begins with.
pub fn run(options: &Options) -> Result {
    let known = targets()?;
    let wanted = &options.operands;
    if let Some(stranger) = wanted.iter().find(|name| !known.contains(name)) {
        let known = known.join(" ");
        return Err(format!("no target \"{stranger}\": there are {known}"));
    }
    let programs = build_programs()?;
    for name in known
        .iter()
        .filter(|name| wanted.is_empty() || wanted.contains(name))
    {
        let target = Target::new(name, &programs)?;
        println!("fuzzing {name}");
        if options.keep {
            target.keep()?;
        } else {
            target.fuzz(options)?;
        }
    }
    Ok(())
}

/// Returns the names of all targets.
fn targets() -> Result<Vec<String>> {
    project::programs_in("tests/fuzz/fuzz_targets")
}

/// Builds the programs and returns their folder.
fn build_programs() -> Result<PathBuf> {
    let host = host()?;
    let folder = root().join("target/libfuzzer");
    // With a target named, the flags are not for build scripts and macros.
    build::run(
        Command::new(build::cargo_program())
            .current_dir(root())
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", FLAGS)
            .args(["build", "--locked", "--quiet", "--profile", "fuzz"])
            .args(["-p", "fuzz", "--bins", "--features", "libfuzzer"])
            .args(["--target", &host, "--target-dir"])
            .arg(&folder),
    )?;
    Ok(folder.join(host).join("fuzz"))
}

/// Returns the compiler's name of this machine.
fn host() -> Result<String> {
    let output = Command::new("rustc")
        .current_dir(root())
        .arg("-vV")
        .output()
        .map_err(|error| format!("cannot run rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(String::from)
        .ok_or_else(|| "rustc does not say what it runs on".into())
}

/// A target, and its folders of inputs.
struct Target {
    program: PathBuf,
    /// Those of the repository.
    kept: PathBuf,
    /// Those that runs here have found.
    found: PathBuf,
}

impl Target {
    fn new(name: &str, programs: &Path) -> Result<Self> {
        let target = Self {
            program: programs.join(name),
            kept: root().join("tests/fuzz/corpus").join(name),
            found: root().join("target/fuzz").join(name),
        };
        for folder in [&target.kept, &target.found] {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        if name == "tree" {
            compile_trees(&target.found)?;
        }
        Ok(target)
    }

    /// Returns the program, which leaves an input that fails beside the folder of what it found.
    fn program(&self) -> Command {
        let mut program = Command::new(&self.program);
        program
            .current_dir(root())
            .arg(format!("-artifact_prefix={}-", self.found.display()))
            .args(["-timeout=20", "-rss_limit_mb=4096"]);
        program
    }

    fn fuzz(&self, options: &Options) -> Result {
        let seconds = options.seconds.unwrap_or(SECONDS);
        build::run(
            self.program()
                .arg(format!("-max_total_time={seconds}"))
                .args(["-max_len=4096", "-len_control=0", "-print_final_stats=1"])
                .args([&self.found, &self.kept]),
        )
    }

    fn keep(&self) -> Result {
        build::run(
            self.program()
                .args(["-set_cover_merge=1", "-use_counters=0", "-max_len=1024"])
                .args([&self.kept, &self.found]),
        )
    }
}

/// Compiles the boards' trees, which are kept as text.
fn compile_trees(folder: &Path) -> Result {
    let sources = root().join("tests/dts");
    let entries =
        fs::read_dir(&sources).map_err(|error| format!("{}: {error}", sources.display()))?;
    for source in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = source.file_stem().unwrap_or_default();
        build::run(
            Command::new("dtc")
                .args(["-q", "-I", "dts", "-O", "dtb", "-o"])
                .arg(folder.join(name))
                .arg(&source),
        )?;
    }
    Ok(())
}

//! Cargo runs and what becomes of their results.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread;

use crate::options::Options;
use crate::project::{GUEST_TARGET, TARGET, root};
use crate::session::ScratchFolder;
use crate::{Result, identity, image, symbols};

/// Builds the hypervisor and leaves its images in `dist/`.
pub fn image(options: &Options) -> Result {
    let elf = with_symbols(&krypton_elf(root())?)?;
    let flat = image::flatten(&elf)?;
    let dist = root().join("dist");
    write(&dist.join("krypton"), &flat)?;
    write(&dist.join("krypton.efi"), &flat)?;
    write(&dist.join("krypton.elf"), &elf)?;
    write(
        &dist.join("krypton.uImage"),
        &image::uimage(&flat, options.load_address),
    )?;
    println!(
        "dist/krypton: {} bytes (also krypton.efi, the same; krypton.elf, krypton.uImage)",
        flat.len()
    );
    Ok(())
}

/// Checks that the flat binary stays below six tenths of Debian's Xen 4.17 (884,744 bytes).
///
/// It has what Xen lacks on ARM, such as the UEFI part and the save records, beside what Xen has.
pub fn is_small() -> Result {
    const LARGEST: u64 = 530_846;
    let flat = krypton()?;
    let size = fs::metadata(&flat)
        .map_err(|error| format!("{}: {error}", flat.display()))?
        .len();
    if size > LARGEST {
        return Err(format!(
            "dist/krypton has {size} bytes, more than {LARGEST}"
        ));
    }
    Ok(())
}

/// Builds the hypervisor, once in a run, and returns its flat binary.
pub fn krypton() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&BUILT, || {
        flat_file(&krypton_elf(root())?, &root().join("dist/krypton"))
    })
}

/// Makes something for the first who asks, while others wait.
fn once(made: &Mutex<Option<PathBuf>>, make: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let mut made = made.lock().map_err(|_| "a build has failed")?;
    match &*made {
        Some(path) => Ok(path.clone()),
        None => Ok(made.insert(make()?).clone()),
    }
}

/// Builds the hypervisor and returns the ELF file that has everything in it.
pub fn elf() -> Result<PathBuf> {
    let file = root().join("dist/krypton.elf");
    write(&file, &with_symbols(&krypton_elf(root())?)?)?;
    Ok(file)
}

/// Builds the hypervisor so that it measures the times with interrupts masked, and returns its flat binary.
pub fn measuring() -> Result<PathBuf> {
    let elf = krypton_elf_with(root(), &["--features", "latency"])?;
    flat_file(&elf, &root().join("target/measuring.flat"))
}

/// Builds the checker that QEMU loads, once in a run, and returns its file.
pub fn hazards_plugin() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&BUILT, || {
        let target = root().join("target");
        run(Command::new(cargo_program())
            .current_dir(root())
            .args(["build", "--release", "--locked", "-p", "hazards-plugin"])
            .arg("--target-dir")
            .arg(&target))?;
        Ok(target.join("release/libhazards_plugin.so"))
    })
}

/// Builds the test guests, once in a run, and returns the folder with their ELF files.
pub fn guests() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&BUILT, || {
        let folder = root().join("tests/guests");
        // From inside the folder: it is a workspace of its own with its own linker script.
        run(&mut build_in(&folder, GUEST_TARGET))?;
        Ok(results_in(&folder, GUEST_TARGET))
    })
}

/// Returns an ELF file, with the table of function names in it if it has a place for one.
fn with_symbols(path: &Path) -> Result<Vec<u8>> {
    let mut elf = read(path)?;
    symbols::fill(&mut elf).map_err(|reason| format!("{}: {reason}", path.display()))?;
    Ok(elf)
}

/// Writes the flat binary of an ELF file to `flat`.
pub fn flat_file(elf: &Path, flat: &Path) -> Result<PathBuf> {
    flatten_into(&with_symbols(elf)?, elf, flat)
}

/// Lays a test guest's ELF file out as a flat binary: guests keep no symbols.
pub fn flat_guest(elf: &Path, flat: &Path) -> Result<PathBuf> {
    let bytes = fs::read(elf).map_err(|error| format!("cannot read {}: {error}", elf.display()))?;
    flatten_into(&bytes, elf, flat)
}

fn flatten_into(bytes: &[u8], elf: &Path, flat: &Path) -> Result<PathBuf> {
    let bytes = image::flatten(bytes).map_err(|reason| format!("{}: {reason}", elf.display()))?;
    write(flat, &bytes)?;
    Ok(flat.to_owned())
}

/// Builds HEAD twice, in folders of different names, and compares the files bit for bit.
pub fn reproducible() -> Result {
    let scratch = ScratchFolder::new("reproducible")?;
    let folder = |name| scratch.path().join(name);
    let (here, there) = (folder("here"), folder("in-another-place"));
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| build_head_in(&here));
        let second = build_head_in(&there);
        (first.join(), second)
    });
    let (first, second) = (first.unwrap_or_else(|panic| resume_unwind(panic))?, second?);
    for (name, first, second) in [
        ("krypton.elf", &first.0, &second.0),
        ("krypton", &first.1, &second.1),
    ] {
        if first != second {
            return Err(format!(
                "two builds of HEAD in two folders give two different {name}"
            ));
        }
    }
    println!(
        "two builds of HEAD in two folders are equal: {} bytes of code and data",
        first.1.len()
    );
    Ok(())
}

fn build_head_in(folder: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    fs::create_dir_all(folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let mut archive = Command::new("git")
        .current_dir(root())
        .args(["archive", "HEAD"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run git: {error}"))?;
    let files = archive.stdout.take().ok_or("git has no output")?;
    run(Command::new("tar")
        .arg("-x")
        .arg("-C")
        .arg(folder)
        .stdin(files))?;
    let status = archive.wait().map_err(|error| format!("git: {error}"))?;
    if !status.success() {
        return Err(format!("git archive: {status}"));
    }
    let elf = with_symbols(&krypton_elf(folder)?)?;
    let flat = image::flatten(&elf)?;
    Ok((elf, flat))
}

/// Builds the hypervisor of the clone in `folder`. File names that the compiler writes into the image are made
/// independent of where the clone and cargo's registry are.
pub fn krypton_elf(folder: &Path) -> Result<PathBuf> {
    krypton_elf_with(folder, &[])
}

fn krypton_elf_with(folder: &Path, features: &[&str]) -> Result<PathBuf> {
    let folder = folder
        .canonicalize()
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let remap = |from: &Path, to: &str| format!("'--remap-path-prefix={}={to}'", from.display());
    let flags = [remap(&folder, "krypton"), remap(&cargo_home()?, "cargo")].join(", ");
    let config = format!("target.{TARGET}.rustflags=[{flags}]");
    run(build_in(&folder, TARGET)
        .args(["--bin", "krypton", "--config", &config])
        .args(features)
        .envs(identity::variables()))?;
    Ok(results_in(&folder, TARGET).join("krypton"))
}

/// Cargo, building for `target` in `folder`. Results go to a folder there whatever a person's settings (`CARGO_TARGET_DIR`)
/// say of others: two builds at once must not share one.
fn build_in(folder: &Path, target: &str) -> Command {
    let mut cargo = cargo_in(folder);
    cargo
        .args(["build", "--release", "--locked", "--target", target])
        .arg("--target-dir")
        .arg(folder.join("target"));
    cargo
}

/// Returns where [`build_in`] leaves what it has built.
fn results_in(folder: &Path, target: &str) -> PathBuf {
    folder.join("target").join(target).join("release")
}

fn cargo_home() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .ok_or_else(|| "HOME is not set".into())
}

/// Cargo in `folder`; its messages go to the terminal.
fn cargo_in(folder: &Path) -> Command {
    let mut cargo = Command::new(cargo_program());
    cargo.current_dir(folder).arg("--quiet");
    cargo
}

/// Returns the cargo that runs us, so that one tool chain builds everything.
pub fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Runs a command to its end, which must be a success.
pub fn run(command: &mut Command) -> Result {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: {status}")),
        Err(error) => Err(format!("cannot run {name}: {error}")),
    }
}

/// Assembles a boot loader of ours, a source of this folder, with more words for the compiler; returns its flat binary.
pub fn assemble(source: &str, options: &[String], folder: &Path) -> Result<PathBuf> {
    let (elf, binary) = (folder.join("loader.elf"), folder.join("loader.bin"));
    run(Command::new("arm-linux-gnueabihf-gcc")
        .args(["-nostdlib", "-static", "-Wl,--build-id=none"])
        .args(options)
        .arg("-o")
        .arg(&elf)
        .arg(root().join("tests/runner/src").join(source)))?;
    run(Command::new("arm-linux-gnueabihf-objcopy")
        .args(["-O", "binary"])
        .args([&elf, &binary]))?;
    Ok(binary)
}

/// Returns the SHA-256 of a file, in hexadecimal digits.
pub fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .arg(file)
        .output()
        .map_err(|error| format!("cannot run sha256sum: {error}"))?;
    match String::from_utf8_lossy(&output.stdout).split_once(' ') {
        Some((sum, _)) if output.status.success() => Ok(sum.to_owned()),
        _ => Err(format!("sha256sum {}: {}", file.display(), output.status)),
    }
}

/// Tells the SHA-256 of the flat binary that a test starts, which must be the same one in every test.
pub fn tell_image(file: &Path) -> Result {
    static FIRST: OnceLock<String> = OnceLock::new();
    let sum = sha256(file)?;
    println!("image sha256 {sum}");
    match FIRST.get_or_init(|| sum.clone()) {
        first if *first == sum => Ok(()),
        first => Err(format!(
            "{} has the SHA-256 {sum}, the image of other tests {first}",
            file.display()
        )),
    }
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Writes a file, but for one that has those bytes: another test may be about to load it.
pub fn write(path: &Path, bytes: &[u8]) -> Result {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, bytes))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::{TARGET, build_in, results_in};

    #[test]
    fn builds_go_where_their_results_are_looked_for() {
        let folder = Path::new("/clone");
        let cargo = build_in(folder, TARGET);
        let mut arguments = cargo.get_args();
        assert!(arguments.any(|word| word == OsStr::new("--target-dir")));
        assert!(results_in(folder, TARGET).starts_with(arguments.next().unwrap()));
    }
}

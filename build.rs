//! Builds the part of the image that runs under UEFI firmware (boot/efi): it is position independent, which the image is
//! not, so it is linked on its own and put into the image as bytes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=boot/efi");
    println!("cargo::rerun-if-changed=dt");
    println!("cargo::rerun-if-changed=Cargo.lock");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    let (root, out) = (variable("CARGO_MANIFEST_DIR"), variable("OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets it");
    let built = out.join("efi");
    build(&variable("CARGO"), &root, &built, &target);
    let file = built.join(target).join("release/krypton-efi");
    fs::copy(&file, out.join("efi.bin")).expect("the linker has written it");
}

fn build(cargo: &Path, root: &Path, to: &Path, target: &str) {
    let script = root.join("boot/efi/efi.ld");
    let flags = [
        "-Ctarget-cpu=cortex-a15".into(),
        "-Crelocation-model=pic".into(),
        // A third smaller. Stable compilers warn that they may change what it is called.
        "-Ctarget-feature=+thumb-mode".into(),
        "-Cllvm-args=--inline-threshold=20".into(),
        format!("-Clink-arg=-T{}", script.display()),
        "-Clink-arg=-pie".into(),
        "-Clink-arg=--no-dynamic-linker".into(),
        "-Clink-arg=--build-id=none".into(),
        "-Clink-arg=--oformat=binary".into(),
        format!("--remap-path-prefix={}=krypton", root.display()),
    ];
    let output = Command::new(cargo)
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            target,
        ])
        .args([
            "--package",
            "krypton-efi",
            "--bin",
            "krypton-efi",
            "--target-dir",
        ])
        .arg(to)
        // A person's setting would have it wait for the build that waits for it.
        .env("CARGO_BUILD_BUILD_DIR", to)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        // A tenth smaller. It adds up sizes of what is in memory, and every slice is asked for: nothing wraps.
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false")
        // What a run of clippy sets is not for this build.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "boot/efi does not build:\n{said}");
}

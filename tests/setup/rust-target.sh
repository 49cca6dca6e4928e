#!/bin/sh
# Makes `core` and `alloc` available to the active Rust toolchain: for thumbv7a-none-eabi, the hypervisor's target, and for
# armv7a-none-eabi, the test guests'.
#
# With rustup free to download, rust-toolchain.toml says all there is to say. Where it may not (RUSTUP_AUTO_INSTALL=0)
# or where there is no rustup, the two libraries are built from Debian's package rust-src of the compiler's own version.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

main() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or newer with rustup, then try again"
    for target in thumbv7a-none-eabi armv7a-none-eabi; do
        install_target
    done
}

install_target() {
    if target_works; then
        return
    fi
    if [ "${RUSTUP_AUTO_INSTALL:-1}" != 0 ] && command -v rustup >/dev/null; then
        step "adding the Rust target $target with rustup"
        rustup target add "$target"
    else
        step "building core and alloc for $target from Debian's rust-src (about a minute, once)"
        (build_from_debian)
    fi
    target_works || fail "the Rust target $target is installed but does not compile"
}

# An older compiler's leftovers would be found but not load, so try rather than look.
target_works() {
    printf '#![no_std]\nextern crate alloc;' |
        rustc --target "$target" --crate-type lib --emit metadata -o "${TMPDIR:-/tmp}/krypton-probe.$$" - 2>/dev/null || return 1
    rm "${TMPDIR:-/tmp}/krypton-probe.$$"
}

build_from_debian() {
    version=$(rustc --version | cut -d ' ' -f 2)
    lock_cache
    scratch=$(mktemp -d "$cache/rust-target.XXXXXX")
    installed=$(rustc --print sysroot)/lib/rustlib/$target
    staged=$installed.$$
    trap 'rm -rf "$scratch" "$staged"' EXIT
    trap 'exit 130' INT TERM

    fetch_rust_src "$version" "$scratch"
    build_libraries
    mkdir -p "$staged/lib" || fail "cannot write to $installed: run once as the owner of the Rust toolchain"
    for library in core alloc compiler_builtins; do
        cp "$scratch/target/$target/release/deps/lib$library"-*.rlib "$staged/lib/"
    done
    # A rename is all or nothing: an interruption leaves either the old state or the new one.
    rm -rf "$installed"
    mv -T "$staged" "$installed"
}

build_libraries() {
    [ -d "$scratch/library/core" ] || fail "Debian's rust-src has no library/core: its layout changed"
    mkdir -p "$scratch/crate/src"
    echo '#![no_std]' >"$scratch/crate/src/lib.rs"
    printf '[package]\nname = "scratch"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$scratch/crate/Cargo.toml"
    # The names that official builds have, so that an image does not tell where these libraries were made.
    remap=--remap-path-prefix=$scratch/library=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')/library
    # embed-bitcode: without it the hypervisor's LTO has nothing to work on.
    (cd "$scratch/crate" &&
        RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$scratch/library RUSTFLAGS="-Cembed-bitcode=yes $remap" \
            CARGO_TARGET_DIR="$scratch/target" CARGO_BUILD_BUILD_DIR="$scratch/target" \
            cargo build --quiet --release --target "$target" \
            -Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem) ||
        fail "building core and alloc failed (above)"
}

main

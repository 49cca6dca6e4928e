#!/bin/sh
# Builds tools/kmove for a Debian dom0: target/kmove/kmove, a static armhf program. Its standard library is built with it, from
# Debian's package rust-src of the compiler's own version, and nothing comes from a network but that package, once.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

target=armv7-unknown-linux-gnueabihf
output=target/kmove

main() {
    version=$(rustc --version | cut -d ' ' -f 2)
    library=$cache/rust-src/$version/library
    [ -z "$(newer)" ] && return
    [ -d "$library/vendor" ] || (lock_cache && fetch_library)
    step "building kmove for dom0 (a minute and a half with its standard library, once)"
    scratch=$output/build
    rm -rf "$scratch/crate"
    mkdir -p "$scratch/crate" "$scratch/home"
    cp -r tools/kmove/Cargo.toml tools/kmove/src "$scratch/crate/"
    # By itself: members of this workspace bring their dependencies, and these are not in the library's folder.
    printf '\n[workspace]\n[profile.release]\nopt-level = "s"\nlto = true\ncodegen-units = 1\npanic = "abort"\nstrip = true\n' \
        >>"$scratch/crate/Cargo.toml"
    build || fail "building kmove failed (above)"
    cp "$scratch/target/$target/release/kmove" "$output/kmove.new"
    mv "$output/kmove.new" "$output/kmove"
}

# Prints what is newer than the program, or that there is none.
newer() {
    [ -f "$output/kmove" ] || echo "$output/kmove"
    [ ! -f "$output/kmove" ] || find tools/kmove tests/setup/kmove.sh -newer "$output/kmove"
}

fetch_library() {
    mkdir -p "$cache/rust-src"
    staged=$(mktemp -d "$cache/rust-src/new.XXXXXX")
    trap 'rm -rf "$staged"' EXIT
    fetch_rust_src "$version" "$staged"
    mkdir -p "$cache/rust-src/$version"
    rm -rf "$library"
    mv -T "$staged/library" "$library"
}

build() {
    root=$(pwd)
    # An empty home: the caller's registry and settings have no part in it.
    (cd "$scratch/crate" &&
        RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$library CARGO_HOME=$root/$scratch/home \
            CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc \
            RUSTFLAGS="-Ctarget-feature=+crt-static --remap-path-prefix=$library=library --remap-path-prefix=$root=." \
            CARGO_TARGET_DIR="$root/$scratch/target" CARGO_BUILD_BUILD_DIR="$root/$scratch/target" \
            cargo build --quiet --release --offline --target "$target" -Zbuild-std=std,panic_abort \
            --config 'source.crates-io.replace-with="library"' --config "source.library.directory=\"$library/vendor\"")
}

main

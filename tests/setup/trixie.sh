#!/bin/sh
# Makes a domU of the kernel of Debian trixie, in target/trixie:
#   vmlinuz     Debian's armhf kernel, byte for byte
#   initrd.gz   an initramfs, the same as guests.sh makes but for the modules
# `make soak` runs this, as nothing else needs another kernel; what it fetches (57 MB) is kept in the cache folder.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh
# shellcheck source=tests/setup/initramfs.sh
. tests/setup/initramfs.sh

suite=trixie
output=target/$suite
kernel_metapackage=linux-image-armmp-lpae
kernel_root=$cache/$suite/root

main() {
    [ -f "$cache/$suite/packages" ] || (lock_cache && fetch)
    is_stale "$output/initrd.gz" tests/domu tests/setup/trixie.sh tests/setup/initramfs.sh || return 0
    open_tree
    step "making a domU for Linux $release"
    mkdir -p "$output"
    add_domu
    pack >"$output/initrd.gz.new"
    cp "$kernel_root/boot/vmlinuz-$release" "$output/vmlinuz"
    mv "$output/initrd.gz.new" "$output/initrd.gz"
}

# The folder appears under its final name only when complete, so an interruption leaves nothing half done.
fetch() {
    staged=$cache/$suite.new
    rm -rf "$staged"
    mkdir -p "$staged/root/usr/lib"
    private_apt_open armhf "$suite"
    kernel=$(private_apt apt-cache depends "$kernel_metapackage" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    [ -n "$kernel" ] || fail "Debian's package $kernel_metapackage of $suite names no kernel"
    step "downloading $kernel of Debian $suite for armhf (57 MB)"
    private_apt_download "$staged" "$kernel"
    dpkg-deb --extract "$staged"/*.deb "$staged/root" || fail "cannot unpack $kernel: try again"
    rm "$staged"/*.deb
    # Where modprobe of this system looks.
    [ -e "$staged/root/lib" ] || ln -s usr/lib "$staged/root/lib"
    depmod --basedir "$staged/root" "${kernel#linux-image-}"
    printf '%s\n' "$kernel" >"$staged/packages"
    rm -rf "${cache:?}/$suite"
    mv "$staged" "$cache/$suite"
}

main

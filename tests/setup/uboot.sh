#!/bin/sh
# Fetches Debian's U-Boot for QEMU's boards into the cache folder; it is not installed. Result: $cache/u-boot/virt.bin, for
# `qemu-system-arm -M virt -bios`.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

main() {
    folder=$cache/u-boot
    lock_cache
    [ ! -f "$folder/virt.bin" ] || return 0

    private_apt_open armhf bookworm bookworm-updates bookworm-security
    step "downloading Debian's U-Boot for QEMU"
    rm -rf "$folder.partial"
    mkdir "$folder.partial"
    private_apt_download "$folder.partial" u-boot-qemu
    dpkg-deb --extract "$folder.partial"/*.deb "$folder.partial/root" ||
        fail "cannot unpack Debian's package u-boot-qemu: try again"
    mkdir -p "$folder"
    mv "$folder.partial/root/usr/lib/u-boot/qemu_arm/u-boot.bin" "$folder/virt.bin"
    rm -r "$folder.partial"
}

main

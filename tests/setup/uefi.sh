#!/bin/sh
# Fetches Debian's 32-bit UEFI firmware for QEMU's `virt` board into the cache folder; it is not installed. Result:
# $cache/uefi/virt.fd, a flash of 64 MiB for `qemu-system-arm -M virt -bios`.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

main() {
    folder=$cache/uefi
    lock_cache
    [ ! -f "$folder/virt.fd" ] || return 0

    private_apt_open armhf bookworm bookworm-updates bookworm-security
    step "downloading Debian's 32-bit UEFI for QEMU"
    rm -rf "$folder.partial"
    mkdir "$folder.partial"
    private_apt_download "$folder.partial" qemu-efi-arm
    dpkg-deb --extract "$folder.partial"/*.deb "$folder.partial/root" ||
        fail "cannot unpack Debian's package qemu-efi-arm: try again"
    mkdir -p "$folder"
    mv "$folder.partial/root/usr/share/AAVMF/AAVMF32_CODE.fd" "$folder/virt.fd"
    rm -r "$folder.partial"
}

main

#!/bin/sh
# Fetches Debian's U-Boot for QEMU's boards into the cache folder; it is not installed. Results in $cache/u-boot: virt.bin,
# for `qemu-system-arm -M virt -bios`; orangepi.bin and bpi-m2-ultra.bin, to be put on a card at 8 KiB. Debian has none for
# the Orange Pi PC: this one is for the Orange Pi Plus, which has the same processor.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

main() {
    folder=$cache/u-boot
    lock_cache
    get virt.bin u-boot-qemu qemu_arm/u-boot.bin
    get orangepi.bin u-boot-sunxi orangepi_plus/u-boot-sunxi-with-spl.bin
    get bpi-m2-ultra.bin u-boot-sunxi Bananapi_M2_Ultra/u-boot-sunxi-with-spl.bin
}

# get RESULT PACKAGE FILE: a file of a package, under that name.
get() {
    [ ! -f "$folder/$1" ] || return 0

    private_apt_open armhf bookworm bookworm-updates bookworm-security
    step "downloading Debian's U-Boot: $2"
    rm -rf "$folder.partial"
    mkdir "$folder.partial"
    private_apt_download "$folder.partial" "$2"
    dpkg-deb --extract "$folder.partial"/*.deb "$folder.partial/root" ||
        fail "cannot unpack Debian's package $2: try again"
    mkdir -p "$folder"
    mv "$folder.partial/root/usr/lib/u-boot/$3" "$folder/$1"
    rm -r "$folder.partial"
}

main

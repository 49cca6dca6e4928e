#!/bin/sh
# Makes what dom0 needs for a domU, from Debian's packages (tests/setup/debian.sh) and tests/domu, in target/guests:
#   guests.img  a file system for dom0's /guests: Debian's kernel, an initramfs, a configuration for xl, a disk in a file
#   data.img    an empty file system: the domU's disk on a device
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh
# shellcheck source=tests/setup/initramfs.sh
. tests/setup/initramfs.sh

output=target/guests

main() {
    is_stale "$output/guests.img" tests/domu tests/setup/guests.sh tests/setup/initramfs.sh || return 0
    open_tree
    step "making a domU for Linux $release"
    mkdir -p "$output" "$tree.volume"
    trap 'rm -rf "$tree" "$tree.volume"' EXIT
    add_initramfs
    pack >"$tree.volume/initrd.gz"
    cp "$root/boot/vmlinuz-$release" "$tree.volume/vmlinuz"
    cp tests/domu/*.cfg "$tree.volume/"
    make_file_system "$tree.volume/file.img" 16 file
    make_file_system "$output/data.img" 16 data
    make_file_system "$output/guests.img.new" 40 guests -d "$tree.volume"
    mv "$output/guests.img.new" "$output/guests.img"
}

add_initramfs() {
    (cd "$tree" && mkdir -p bin sbin usr/bin usr/sbin dev proc sys tmp root run mnt etc lib/modules)
    add_file bin/busybox
    add_modules xen-blkfront xen-netfront ext4 crc32c_generic
    install -m 755 tests/domu/init "$tree/init"
    install -m 755 tests/domu/fill tests/domu/measure tests/domu/start "$tree/bin/"
    cp tests/domu/inittab "$tree/etc/"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    echo 'root:x:0:' >"$tree/etc/group"
}

# make_file_system FILE MEBIBYTES LABEL [OPTION...]
make_file_system() {
    file=$1
    mebibytes=$2
    label=$3
    shift 3
    rm -f "$file"
    truncate -s "${mebibytes}M" "$file"
    mke2fs -q -t ext4 -m 0 -E root_owner=0:0 -L "$label" "$@" "$file" || fail "cannot make the file system $file"
}

main

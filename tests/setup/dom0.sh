#!/bin/sh
# Makes dom0's boot files from Debian's packages (tests/setup/debian.sh) and tests/dom0, in target/dom0:
#   vmlinuz    Debian's armhf kernel, byte for byte
#   initrd.gz  busybox, the kernel modules named below, Xen's toolstack, stress-ng and the tests; reproducible
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

root=$cache/debian/root
output=target/dom0

modules='
    xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs xen-blkback xen-netback
    virtio_mmio virtio_pci virtio_blk virtio_net ext4 bridge loop
'
programs='
    bin/busybox bin/bash usr/bin/stress-ng
    usr/bin/xenstore-exists usr/bin/xenstore-list usr/bin/xenstore-ls usr/bin/xenstore-read usr/bin/xenstore-rm
    usr/bin/xenstore-watch usr/bin/xenstore-write usr/bin/xenstore-chmod
    usr/lib/xen-4.17/bin/xl usr/lib/xen-4.17/bin/libxl-save-helper usr/lib/xen-4.17/bin/xenconsole
    usr/lib/xen-4.17/bin/xenconsoled usr/lib/xen-4.17/bin/xenstored usr/lib/xen-4.17/bin/xen-init-dom0
    usr/lib/xen-4.17/bin/xentop usr/lib/xen-4.17/bin/xenstore-control usr/sbin/xenhypfs
'
library_folders='lib/arm-linux-gnueabihf usr/lib/arm-linux-gnueabihf usr/lib/xen-4.17/lib/arm-linux-gnueabihf'

main() {
    [ -f "$cache/debian/packages" ] || fail "Debian's packages are missing: run tests/setup/debian.sh first"
    release=$(basename "$root"/lib/modules/*)
    is_stale || return 0

    step "making dom0's initramfs for Linux $release"
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    trap 'exit 130' INT TERM
    chmod 755 "$tree"
    mkdir -p "$output"
    add_folders
    for program in $programs; do
        add_file "$program"
        add_libraries "$root/$program"
    done
    add_file lib/arm-linux-gnueabihf/libgcc_s.so.1 # opened by libc itself when a thread ends
    add_modules
    add_own_files
    pack >"$output/initrd.gz.new"
    cp "$root/boot/vmlinuz-$release" "$output/vmlinuz"
    mv "$output/initrd.gz.new" "$output/initrd.gz"
}

is_stale() {
    [ -f "$output/initrd.gz" ] || return 0
    [ -n "$(find tests/dom0 tests/setup/dom0.sh "$cache/debian/packages" -newer "$output/initrd.gz")" ]
}

add_folders() {
    (cd "$tree" && mkdir -p bin sbin usr/bin usr/sbin dev proc sys tmp root mnt etc/xen/scripts etc/xen/auto \
        lib/modules var/lib/xen var/log/xen/console run/xen run/lock/xen)
    # xenstored and libxl use the old names of /run.
    ln -s ../run "$tree/var/run"
    ln -s ../run/lock "$tree/var/lock"
}

# Links are followed: the image holds each file once, under the name it is looked up by.
add_file() {
    mkdir -p "$tree/$(dirname "$1")"
    cp -L "$root/$1" "$tree/$1" || fail "Debian's packages have no $1: update the list in tests/setup/dom0.sh"
}

# The libraries that the ELF file $1 needs, and theirs.
add_libraries() {
    for library in $(readelf -d "$1" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        path=$(library_path "$library")
        [ ! -e "$tree/$path" ] || continue
        add_file "$path"
        add_libraries "$root/$path"
    done
}

library_path() {
    for folder in lib $library_folders; do
        [ ! -e "$root/$folder/$1" ] || { printf '%s/%s\n' "$folder" "$1" && return; }
    done
    fail "library $1 is in none of Debian's packages: add its package to tests/setup/debian.sh"
}

add_modules() {
    for module in $modules; do
        modprobe -C /dev/null -d "$root" -S "$release" --show-depends "$module" || fail "Debian's kernel has no module $module"
    done | sed -n "s#^insmod $root/\([^ ]*\).*#\1#p" | sort -u | while read -r file; do
        add_file "$file"
    done
    for index in modules.order modules.builtin modules.builtin.modinfo; do
        add_file "lib/modules/$release/$index"
    done
    depmod --basedir "$tree" "$release"
}

add_own_files() {
    install -m 755 tests/dom0/init "$tree/init"
    install -m 755 tests/dom0/session "$tree/sbin/session"
    cp tests/dom0/inittab tests/dom0/profile "$tree/etc/"
    install -m 755 tests/dom0/hotplug/* "$tree/etc/xen/scripts/"
    cp "$root/etc/xen/xl.conf" "$tree/etc/xen/"
    mkdir "$tree/tests"
    install -m 755 tests/dom0/*.sh "$tree/tests/"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    echo 'root:x:0:' >"$tree/etc/group"
}

# The same input gives the same bytes: one time stamp, one order, one owner.
pack() {
    find "$tree" -exec touch -h -d @0 {} +
    (cd "$tree" && find . | LC_ALL=C sort | cpio --quiet --create --format=newc --reproducible --owner=0:0) | gzip -9n
}

main

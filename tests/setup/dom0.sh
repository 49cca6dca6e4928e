#!/bin/sh
# Makes dom0's boot files from Debian's packages (tests/setup/debian.sh) and tests/dom0, in target/dom0:
#   vmlinuz    Debian's armhf kernel, byte for byte
#   initrd.gz  busybox, the kernel modules named below, Xen's toolstack, kmove, stress-ng and the tests; reproducible
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh
# shellcheck source=tests/setup/initramfs.sh
. tests/setup/initramfs.sh

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
    usr/lib/xen-4.17/bin/init-dom0less usr/lib/xen-4.17/bin/xentop usr/lib/xen-4.17/bin/xenstore-control usr/sbin/xenhypfs
    usr/lib/xen-4.17/bin/xenwatchdogd usr/lib/xen-4.17/bin/test-resource usr/lib/xen-4.17/bin/test-xenstore
    usr/lib/xen-4.17/bin/test-paging-mempool
'

main() {
    is_stale "$output/initrd.gz" tests/dom0 tests/setup/dom0.sh tests/setup/initramfs.sh tools/xl target/kmove/kmove || return 0
    open_tree
    step "making dom0's initramfs for Linux $release"
    mkdir -p "$output"
    add_folders
    for program in $programs; do
        add_file "$program"
        add_libraries "$root/$program"
    done
    add_file lib/arm-linux-gnueabihf/libgcc_s.so.1 # opened by libc itself when a thread ends
    # shellcheck disable=SC2086 # a list of words
    add_modules $modules
    add_own_files
    pack >"$output/initrd.gz.new"
    cp "$root/boot/vmlinuz-$release" "$output/vmlinuz"
    mv "$output/initrd.gz.new" "$output/initrd.gz"
}

add_folders() {
    (cd "$tree" && mkdir -p bin sbin usr/bin usr/sbin dev proc sys tmp root mnt guests tools etc/xen/scripts etc/xen/auto \
        lib/modules var/lib/xen var/log/xen/console run/xen run/lock/xen)
    # xenstored and libxl use the old names of /run.
    ln -s ../run "$tree/var/run"
    ln -s ../run/lock "$tree/var/lock"
}

add_own_files() {
    install -m 755 tests/dom0/init "$tree/init"
    for script in session greet run-test settle wake; do
        install -m 755 "tests/dom0/$script" "$tree/sbin/"
    done
    install -m 755 target/kmove/kmove "$tree/usr/bin/"
    install -D -m 755 tools/xl "$tree/usr/local/sbin/xl"
    cp tests/dom0/inittab tests/dom0/profile "$tree/etc/"
    install -m 755 tests/dom0/hotplug/* "$tree/etc/xen/scripts/"
    cp "$root/etc/xen/xl.conf" "$tree/etc/xen/"
    mkdir "$tree/tests"
    install -m 755 tests/dom0/*.sh "$tree/tests/"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    echo 'root:x:0:' >"$tree/etc/group"
}

main

#!/bin/sh
# Makes a whole Debian for armhf as disks with one partition, for QEMU's `virt` board with U-Boot:
#   target/debian/disk.img    with dist/'s package krypton-hypervisor installed: `make debian`
#   target/debian/plain.img   the same without it; the package lies in /root (`image.sh plain`)
#   target/debian/guest.img   a domU's disk alone, a file system (`image.sh guest`)
#   target/debian/ssh_key     what root logs in with
# Debian itself, dom0's and a domU's, is made once, by mmdebstrap, and kept in the cache folder. Its programs run under qemu-user, which needs
# binfmt_misc; this needs root, or a user who may make name spaces.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

output=target/debian
size_mib=6144
# Packages that boot it (u-boot-menu), that dom0 needs, and that a person expects.
root_packages='
    linux-image-armmp-lpae initramfs-tools busybox-static zstd u-boot-menu
    systemd-sysv udev dbus libpam-systemd kmod procps less nano bash-completion
    ifupdown isc-dhcp-client iproute2 iputils-ping bridge-utils netbase openssh-server
    xen-utils-4.17 xen-utils-common e2fsprogs lvm2 debootstrap
    libvirt-daemon-system libvirt-daemon-driver-xen libvirt-clients
'
# A domU starts with dom0's kernel, so it has none.
guest_packages='
    systemd-sysv udev dbus libpam-systemd kmod procps less
    ifupdown isc-dhcp-client iproute2 iputils-ping netbase openssh-server e2fsprogs
'

main() {
    folder=$cache/image
    case ${1:-disk} in
    disk) disk=$output/disk.img ;;
    plain) disk=$output/plain.img ;;
    guest) disk=$output/guest.img ;;
    *) fail "image.sh knows disk, plain and guest, not $1" ;;
    esac
    if [ "${1-}" = guest ]; then
        ! is_fresh || return 0
        prepare_host
        make_root_of guest "$guest_packages"
        make_disk
        return
    fi
    package=$(echo dist/krypton-hypervisor_*_armhf.deb)
    [ -f "$package" ] || fail "the package is missing: run \`make deb\` first"
    has root "$root_packages" && cmp -s "$package" "$disk.deb" && is_fresh && return
    prepare_host
    # Only the drivers that this machine and a domU have: with all of them the RAM disk takes longer than everything else here.
    make_root_of root "$root_packages" \
        --essential-hook="mkdir -p \"\$1/etc/initramfs-tools/conf.d\" \"\$1/usr/share/initramfs-tools/modules.d\"" \
        --essential-hook="echo MODULES=list >\"\$1/etc/initramfs-tools/conf.d/driver-policy\"" \
        --essential-hook="copy-in tests/debian/modules /usr/share/initramfs-tools/modules.d/"
    make_root_of guest "$guest_packages"
    make_disk "$package"
}

prepare_host() {
    tests/setup/host.sh debian
    can_run_armhf
}

# Returns 0 where the disk is newer than the domU that is in it and these scripts.
is_fresh() {
    [ -f "$disk" ] && has guest "$guest_packages" && [ -z "$(find tests/setup/image.sh tests/debian -newer "$disk")" ]
}

# has NAME PACKAGES: returns 0 where the cache holds that tar file, made of those packages.
has() {
    # shellcheck disable=SC2086 # a list of words
    [ -f "$folder/$1.tar" ] && [ "$(cat "$folder/$1.packages" 2>/dev/null)" = "$(echo $2)" ]
}

# The kernel must hand programs for armhf to qemu-user. Where binfmt_misc is not mounted, as in a container, root can mount it.
can_run_armhf() {
    arch-test armhf >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ]; then
        mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || true
        update-binfmts --import qemu-arm >/dev/null 2>&1 || true
        update-binfmts --enable qemu-arm >/dev/null 2>&1 || true
    fi
    arch-test armhf >/dev/null 2>&1 ||
        fail "programs for armhf do not run here: qemu-user-static must be registered in /proc/sys/fs/binfmt_misc"
}

# make_root_of NAME PACKAGES OPTION...: Debian as a tar file in the cache, if it is not there.
make_root_of() {
    ! has "$1" "$2" || return 0
    (lock_cache && make_root "$@")
}

make_root() {
    step "making Debian 12 for armhf ($1) from its packages, under emulation: 10 to 30 minutes, once"
    name=$1
    # shellcheck disable=SC2086 # a list of words
    list=$(echo $2)
    shift 2
    mkdir -p "$folder"
    mmdebstrap --quiet --format=tar --architectures=armhf --variant=minbase --aptopt='Acquire::Languages "none"' \
        --include="$(echo "$list" | tr ' ' ,)" "$@" \
        bookworm "$folder/$name.tar.new" "$(source_of bookworm)" "$(source_of bookworm-updates)" ||
        fail "mmdebstrap failed (above): try again"
    mv "$folder/$name.tar.new" "$folder/$name.tar"
    printf '%s\n' "$list" >"$folder/$name.packages"
}

# source_of SUITE: a line of sources.list.
source_of() {
    archive=$(debian_archive "$1")
    [ -n "$archive" ] || fail "this machine's apt knows no archive with Debian's suite $1"
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$archive" "$1"
}

# make_disk [PACKAGE]
make_disk() {
    step "making $disk${1:+ with $1}"
    mkdir -p "$output"
    [ -f "$output/ssh_key" ] || ssh-keygen -q -t ed25519 -N '' -C krypton -f "$output/ssh_key"
    rm -f "$disk" "$disk.new"
    if [ -n "${1-}" ]; then
        truncate -s "${size_mib}M" "$disk.new"
        echo 'start=2048, type=83, bootable' | sfdisk --quiet "$disk.new"
    fi
    if [ "$(id -u)" = 0 ]; then
        sh tests/debian/fill "$disk.new" "$folder" "$@"
    else
        unshare --map-auto --map-root-user sh tests/debian/fill "$disk.new" "$folder" "$@"
    fi || fail "cannot fill $disk (above)"
    [ -z "${1-}" ] || cp "$1" "$disk.deb"
    mv "$disk.new" "$disk"
}

main "$@"

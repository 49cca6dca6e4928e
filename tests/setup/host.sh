#!/bin/sh
# Installs the host's tools on Debian bookworm: QEMU >= 10 (from bookworm-backports, through a private apt configuration:
# the machine's source list stays as it is) and what the images and tests are made with. What is there is skipped.
# `host.sh build` stops at what a build needs; `host.sh debian` goes on to what makes a whole Debian (image.sh), `host.sh fuzz`
# to what libFuzzer is made with.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

# QEMU 7.2 of bookworm itself stalls SMP guests in their PV I/O, under any hypervisor.
qemu_minimum=10

# command and the packages it comes from
build_tools='
cc gcc libc6-dev
'
test_tools='
cpio cpio
xz xz-utils
depmod kmod
mke2fs e2fsprogs
readelf binutils
dtc device-tree-compiler
mkimage u-boot-tools
mcopy mtools
openssl openssl
arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
'

debian_tools='
mmdebstrap mmdebstrap
arch-test arch-test
qemu-arm-static qemu-user-static binfmt-support
sfdisk fdisk
newuidmap uidmap
ssh openssh-client
'

fuzz_tools='
c++ g++
dtc device-tree-compiler
'

main() {
    qemu=
    case ${1:-} in
    build) tools=$(missing_tools "$build_tools") ;;
    debian) tools=$(missing_tools "$debian_tools") ;;
    fuzz) tools=$(missing_tools "$fuzz_tools") ;;
    *)
        tools=$(missing_tools "$build_tools$test_tools")
        qemu_is_new_enough || qemu=" qemu-system-arm(>=$qemu_minimum)"
        ;;
    esac
    [ -n "$tools$qemu" ] || return 0
    choose_root "$tools$qemu"

    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    lock_cache
    private_apt_open "$(dpkg --print-architecture)" "$codename" "$codename-updates" "$codename-security" "$codename-backports"
    if [ -n "$tools" ]; then
        step "installing$tools"
        # shellcheck disable=SC2086 # a list of words
        install_packages $tools || fail "cannot install$tools: check the network and try again"
    fi
    if [ -n "$qemu" ]; then
        step "installing qemu-system-arm >= $qemu_minimum from $codename-backports"
        install_packages -t "$codename-backports" qemu-system-arm ||
            fail "cannot install qemu-system-arm from $codename-backports: check the network and try again"
        qemu_is_new_enough ||
            fail "$codename-backports has no QEMU >= $qemu_minimum: install a newer qemu-system-arm by hand"
    fi
}

qemu_is_new_enough() {
    qemu_major=$(qemu-system-arm --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p')
    [ "${qemu_major:-0}" -ge "$qemu_minimum" ]
}

# Prints the packages of those commands in the list $1 that are not found, each with a space before it.
missing_tools() {
    printf '%s' "$1" | while read -r command package; do
        [ -z "$command" ] || command -v "$command" >/dev/null || printf ' %s' "$package"
    done
}

# Sets $as_root to what runs a command as root, or says what to type.
choose_root() {
    as_root=
    [ "$(id -u)" != 0 ] || return 0
    as_root=sudo
    sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; } ||
        fail "missing:$1. Root must install them; run: su -c 'sh $PWD/tests/setup/host.sh' and then this command again"
}

# Installs into this system, hence with its own package state and cache, but from the private indexes.
install_packages() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -c "$apt_dir/apt.conf" \
        -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=/var/cache/apt \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o DPkg::Lock::Timeout=300 \
        "$(apt_verbosity)" install --yes --no-install-recommends "$@"
}

main "$@"

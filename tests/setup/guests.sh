#!/bin/sh
# Makes what dom0 needs for a domU, from Debian's packages (tests/setup/debian.sh) and tests/domu, in target/guests:
#   initrd.gz   an initramfs, for domUs that the hypervisor starts itself
#   unpacked    Debian's kernel without its decompressor, which takes a third of a domU's start in QEMU
#   guests.img  a file system for dom0's /guests: both kernels, an initramfs, configurations for xl and what one of them names, a disk in a file
#   data.img    an empty file system: the domU's disk on a device
#   tools.img   a file system for dom0's /tools and for domUs: fio, hackbench, iperf3, perf, stress-ng, their libraries, and `measure`
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh
# shellcheck source=tests/setup/initramfs.sh
. tests/setup/initramfs.sh

output=target/guests

tools='usr/bin/fio usr/bin/hackbench usr/bin/iperf3 usr/bin/perf usr/bin/stress-ng'

main() {
    is_stale "$output/guests.img" tests/domu tests/setup/guests.sh tests/setup/unpacked.S tests/setup/initramfs.sh || return 0
    open_tree
    step "making a domU for Linux $release"
    mkdir -p "$output" "$tree.volume" "$tree.tools"
    trap 'rm -rf "$tree" "$tree.volume" "$tree.tools" "$tree.kernel" "$tree.elf"' EXIT
    add_domu
    pack >"$tree.volume/initrd.gz"
    cp "$root/boot/vmlinuz-$release" "$tree.volume/vmlinuz"
    (unpack_kernel "$tree.volume/vmlinuz")
    cp "$output/unpacked" "$tree.volume/"
    cp tests/domu/*.cfg "$tree.volume/"
    for part in rtc pmu; do
        dtc -q -I dts -O dtb -o "$tree.volume/$part.dtb" "tests/domu/$part.dts"
    done
    make_file_system "$tree.volume/file.img" 16 file
    make_file_system "$output/data.img" 16 data
    (make_tools)
    make_file_system "$output/guests.img.new" 64 guests -d "$tree.volume"
    cp "$tree.volume/initrd.gz" "$output/initrd.gz"
    mv "$output/guests.img.new" "$output/guests.img"
}

# Makes $output/unpacked of the zImage $1. The decompressor's own code may hold the first bytes of a file of xz, too.
unpack_kernel() {
    LC_ALL=C grep -obUaP '\xfd7zXZ\x00' "$1" | while IFS=: read -r offset _; do
        # An archive that something follows is an error for xz, which has written all of it by then.
        tail -c "+$((offset + 1))" "$1" | xz -dc >"$tree.kernel" 2>/dev/null || true
        [ ! -s "$tree.kernel" ] || break
    done
    [ -s "$tree.kernel" ] || fail "$1 is not packed by xz: teach unpack_kernel in $0 its way"
    arm-linux-gnueabihf-gcc -nostdlib -static -Wl,--build-id=none -Wl,-Ttext=0 "-DKERNEL=\"$tree.kernel\"" \
        -o "$tree.elf" tests/setup/unpacked.S
    arm-linux-gnueabihf-objcopy -O binary "$tree.elf" "$output/unpacked"
}

# Each library directly below lib: one folder for LD_LIBRARY_PATH.
make_tools() {
    tree=$tree.tools
    for program in $tools; do
        add_file "$program"
        add_libraries "$root/$program"
    done
    add_file lib/arm-linux-gnueabihf/libgcc_s.so.1 # opened by libc itself when a thread ends
    mkdir "$tree/bin" "$tree/flat"
    mv "$tree"/usr/bin/* "$tree/bin/"
    install -m 755 tests/domu/measure "$tree/bin/"
    find "$tree/lib" "$tree/usr" -type f -exec mv {} "$tree/flat/" \;
    rm -r "$tree/lib" "$tree/usr"
    mv "$tree/flat" "$tree/lib"
    make_file_system "$output/tools.img" 128 tools -d "$tree"
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

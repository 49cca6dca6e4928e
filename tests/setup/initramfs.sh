# shellcheck shell=sh
# Shared by the scripts that make an initramfs from Debian's unpacked packages: files, libraries, kernel modules, packing.
# shellcheck disable=SC2154 # $cache comes from lib.sh

root=$cache/debian/root
# Where kernel and modules come from.
kernel_root=$root
library_folders='lib/arm-linux-gnueabihf usr/lib/arm-linux-gnueabihf usr/lib/xen-4.17/lib/arm-linux-gnueabihf
    usr/lib/arm-linux-gnueabihf/ceph'

# is_stale RESULT INPUT...: RESULT is missing, or something of the inputs is newer.
is_stale() {
    [ -f "$cache/debian/packages" ] || fail "Debian's packages are missing: run tests/setup/debian.sh first"
    result=$1
    shift
    [ -f "$result" ] || return 0
    [ -n "$(find "$@" "$kernel_root/../packages" -newer "$result")" ]
}

# Sets $release to the kernel's and $tree to an empty folder, which goes when the script ends.
open_tree() {
    release=$(basename "$kernel_root"/lib/modules/*)
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    trap 'exit 130' INT TERM
    chmod 755 "$tree"
}

# add_file FILE [ROOT]: links are followed: the image holds each file once, under the name it is looked up by.
add_file() {
    mkdir -p "$tree/$(dirname "$1")"
    cp -L "${2:-$root}/$1" "$tree/$1" || fail "Debian's packages have no $1: update the list in $0"
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

# add_modules MODULE...: and what they need. busybox loads none that is compressed.
add_modules() {
    for module; do
        modprobe -C /dev/null -d "$kernel_root" -S "$release" --show-depends "$module" ||
            fail "Debian's kernel has no module $module"
    done | sed -n "s#^insmod $kernel_root/\([^ ]*\).*#\1#p" | sort -u | while read -r file; do
        add_file "$file" "$kernel_root"
    done
    find "$tree/lib/modules" -name '*.xz' -exec xz -d {} +
    for index in modules.order modules.builtin modules.builtin.modinfo; do
        add_file "lib/modules/$release/$index" "$kernel_root"
    done
    depmod --basedir "$tree" "$release"
}

# Adds all that a domU of tests/domu starts with.
add_domu() {
    (cd "$tree" && mkdir -p bin sbin usr/bin usr/sbin dev proc sys tmp root run mnt etc lib/modules)
    add_file bin/busybox
    add_modules xen-blkfront xen-netfront ext4 crc32c_generic
    install -m 755 tests/domu/init "$tree/init"
    install -m 755 tests/domu/fill tests/domu/start "$tree/bin/"
    cp tests/domu/inittab tests/domu/profile "$tree/etc/"
    # The tools' loader is on their disk, where a domU has it.
    ln -s /mnt/xvdc/lib/ld-linux-armhf.so.3 "$tree/lib/"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    echo 'root:x:0:' >"$tree/etc/group"
}

# The same input gives the same bytes: one time stamp, one order, one owner.
pack() {
    find "$tree" -exec touch -h -d @0 {} +
    (cd "$tree" && find . | LC_ALL=C sort | cpio --quiet --create --format=newc --reproducible --owner=0:0) | gzip -9n
}

#!/bin/sh
# A virtio disk behind the mmio transport and one behind PCI return what was written to them. Their contents are lost.
. /tests/lib.sh

mebibytes=64

# A mebibyte of hexadecimal digits from a linear congruential generator; the seed is fixed, so a failure repeats.
make_seed() {
    awk 'BEGIN { x = 4711; for (i = 0; i < 131072; i++) { x = (x * 1103515245 + 12345) % 2147483648; printf "%08x", x } }' >/tmp/seed
}

# Every mebibyte is the seed rotated by its own distance, so a block in the wrong place changes the sum.
generate() {
    i=0
    while [ "$i" -lt "$mebibytes" ]; do
        tail -c +$((i * 4099 + 1)) /tmp/seed
        head -c $((i * 4099)) /tmp/seed
        i=$((i + 1))
    done
}

# The spare disks have this many sectors, and no others have.
spare=262144

# disk_on BUS: the spare disk whose device path names the bus.
disk_on() {
    for disk in /sys/block/vd*; do
        [ "$(cat "$disk/size")" = "$spare" ] || continue
        case $(readlink -f "$disk") in
        *"$1"*) basename "$disk" && return ;;
        esac
    done
    return 1
}

returns_what_was_written() {
    generate | dd of="$1" bs=1M iflag=fullblock conv=fsync 2>&1 || return
    echo 3 >/proc/sys/vm/drop_caches
    [ "$(dd if="$1" bs=1M count="$mebibytes" 2>/dev/null | sha256sum)" = "$expected" ]
}

make_seed
expected=$(generate | sha256sum)
for bus in virtio_mmio pci; do
    check "a disk on $bus is there" disk_on "$bus"
    disk=$(disk_on "$bus") || continue
    check "$mebibytes MiB on $disk ($bus) read back as written" returns_what_was_written "/dev/$disk"
done
finish

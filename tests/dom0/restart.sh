#!/bin/sh
# A domU outlives the machine: it is saved on a disk of dom0's, and after a start of everything it comes back from there.
# Runs twice on the same disks, of which the first part leaves one with a stream. The second machine may be another one: with
# the same processor the domU comes back there too, and with another revision it is refused.
. /tests/lib.sh
. /tests/domu.sh

# The spare disks are those of 128 MiB.
disk=/dev/$(awk '$3 == 131072 { print $4; exit }' /proc/partitions)

# The processor by its revision, behind the stream.
processor() { grep -E '^CPU (variant|revision)' /proc/cpuinfo | sort -u; }
notes_the_processor() { processor | dd of="$disk" bs=1M seek=127 conv=notrunc,fsync; }
is_of_this_processor() { [ "$(dd if="$disk" bs=1M skip=127 2>/dev/null | tr -d '\0')" = "$(processor)" ]; }
# By the name of the register that tells them apart.
is_refused() { ! xl restore "$disk" && xl dmesg | grep 'its saved state is refused: .* another processor by MIDR'; }
is_written() { head -c 12 "$disk" | tail -c 4 | grep XENF; }
is_saved() { xl save demo "$disk" && eventually only_dom0_is_left; }
file_is_the_same() {
    answers demo '^sum is [0-9a-f]{64}' "echo 3 >/proc/sys/vm/drop_caches; echo sum is \$(sha256sum </mnt/xvda/f), \$(cat /tmp/sum)" &&
        sed -n 's/^sum is \([0-9a-f]*\) -, \([0-9a-f]*\) -.*/\1 \2/p' "$log" | awk '$1 == $2 { same = 1 } END { exit !same }'
}
log=/var/log/xen/console/guest-demo.log

free=$(free_memory)
if is_written; then
    check "the stream is whole" kmove verify "$disk"
    if ! is_of_this_processor; then
        check "another processor refuses it by name" is_refused
        check "nothing of it is left" memory_comes_back "$free"
        finish
    fi
    check "the domU comes back" xl restore "$disk"
    check "its memory and its disk are as they were" file_is_the_same
    check "it answers ping" ping -c 3 -W 10 192.168.7.2
    check "it ends" xl shutdown -w demo
    check "all its memory is free again" memory_comes_back "$free"
else
    check "a domU starts" xl create /guests/demo.cfg 'disk=["phy:/dev/data,xvda,w"]'
    check "it comes up" says demo '^domU is up: '
    check "it writes to its disk, and keeps the sum in its memory" answers demo '^sum of f' 'fill /mnt/xvda/f 4; sha256sum </mnt/xvda/f >/tmp/sum'
    check "it is saved on a disk" is_saved
    check "its processor is noted there" notes_the_processor
fi
finish

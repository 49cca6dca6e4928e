#!/bin/sh
# Whole-system figures, `macro ROW FIGURE`, in microseconds or KiB: dom0 alone, and a domU's life. For one CPU whose time
# counts instructions (make bench): elsewhere the figures mean little. Without a hypervisor only dom0's part runs. Disks are
# in dom0's memory, so that no time passes while the machine around the emulator does its work.
. /tests/lib.sh
. /tests/domu.sh

log=/var/log/xen/console/guest-bench.log

# Microseconds; busybox's clocks are too coarse.
# shellcheck disable=SC2016 # bash is to expand it
now() { bash -c 'echo ${EPOCHREALTIME/./}'; }

figure() { echo "macro $1 $2"; }

# timed ROW COMMAND...
timed() {
    row=$1
    shift
    start=$(now)
    check "$row" "$@"
    figure "$row" $(($(now) - start))
}

# in_memory DEVICE FILE LOOP: the file or disk, as a disk in memory.
in_memory() { dd if="$1" of="$2" bs=1M && losetup "$3" "$2"; }

# The same programs for all, by the same device.
move_tools() { in_memory /dev/tools /tmp/tools /dev/loop5 && umount /tools && mount -o ro /dev/loop5 /tools; }

# Measures dom0's own work.
work() {
    /tools/bin/measure '' /tools /dev/loop6 >/tmp/work
    sed -n 's/^figure/macro/p' /tmp/work
    check "all of dom0's work is measured" [ "$(grep -c '^figure' /tmp/work)" = 8 ]
}

# up_at FILE WORDS: when the file has the words, in microseconds. Looks 20 times a second, without a process each time.
# shellcheck disable=SC2016 # bash is to expand it
up_at() {
    rm -f /tmp/never && mkfifo /tmp/never
    bash -c 'exec 3<>/tmp/never
        until mapfile -t lines <"$1" && [[ "${lines[*]}" == *"$2"* ]]; do read -rt 0.05 -u 3; done
        echo "${EPOCHREALTIME/./}"' up_at "$@" 2>/dev/null
}

# Waits for the figure of the domU's own command on its console: `figure NAME MICROSECONDS`.
in_domu() {
    check "$1" says bench "^figure $1 [0-9]"
    figure "$1" "$(sed -n "s/^figure $1 \([0-9]*\).*/\1/p" "$log" | tail -n 1)"
}

figure kernel_to_init "$(dmesg | sed -n 's/^\[ *\([0-9]*\)\.\([0-9]*\)\] Run .* as init process/\1\2/p')"
check "the tools are in memory" move_tools
check "a disk is in memory" in_memory /guests/file.img /tmp/disk /dev/loop6
work

if grep -q control_d /proc/xen/capabilities 2>/dev/null; then
    kib=$(($(xl info total_memory) * 1024))
    free=$(free_memory)
    figure memory_kept $((kib - free - 512 * 1024))

    # dom0's work has overwritten the file system on it.
    dd if=/guests/file.img of=/dev/loop6 bs=1M 2>/dev/null
    with_tools iperf3 --server --daemon
    start=$(now)
    check "xl create" xl create /guests/bench.cfg
    figure xl_create $(($(now) - start))
    figure xl_create_to_init $(($(up_at "$log" "domU is up") - start))
    figure memory_per_domu $((free - $(free_memory) - 64 * 1024))
    for row in fork_exec_200 dd_100k unpack_and_build hackbench fio_read_1m fio_read_4k fio_write_1m fio_write_4k \
        iperf3_send iperf3_receive; do
        in_domu "domu_$row"
    done
    check "it answers ping" ping -c 3 -W 10 192.168.7.2
    figure domu_ping "$(ping -c 50 -i 0.1 192.168.7.2 | sed -n 's#.*= [0-9.]*/\([0-9]*\)\.\([0-9]*\)/.*#\1\2#p')"
    timed xl_destroy xl destroy bench
    [ "$failures" = 0 ] || cat "$log"
fi
finish

#!/bin/sh
# Whole-system figures, `macro ROW FIGURE`, in microseconds or KiB: dom0 alone, and a domU's life. For one CPU whose time
# counts instructions (make bench): elsewhere the figures mean little. Without a hypervisor only dom0's part runs.
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

fork_and_exec() {
    for _ in $(seq 200); do
        /bin/busybox true || return
    done
}

# up_at FILE WORDS: when the file has the words, in microseconds. Looks 20 times a second, without a process each time.
# shellcheck disable=SC2016 # bash is to expand it
up_at() {
    rm -f /tmp/never && mkfifo /tmp/never
    bash -c 'exec 3<>/tmp/never
        until mapfile -t lines <"$1" && [[ "${lines[*]}" == *"$2"* ]]; do read -rt 0.05 -u 3; done
        echo "${EPOCHREALTIME/./}"' up_at "$@" 2>/dev/null
}

# What the domU's own command took, by its console: `figure NAME MICROSECONDS`.
in_domu() {
    check "$1" says bench "^figure $1 "
    figure "$1" "$(sed -n "s/^figure $1 \([0-9]*\).*/\1/p" "$log" | tail -n 1)"
}

figure kernel_to_init "$(dmesg | sed -n 's/^\[ *\([0-9]*\)\.\([0-9]*\)\] Run .* as init process/\1\2/p')"
timed fork_exec_200 fork_and_exec
timed dd_100k dd if=/dev/zero of=/dev/null bs=512 count=100000

if grep -q control_d /proc/xen/capabilities 2>/dev/null; then
    kib=$(($(xl info total_memory) * 1024))
    free=$(free_memory)
    figure memory_kept $((kib - free - 512 * 1024))

    # The domU's disk: in dom0's memory, so that no time passes while the machine around the emulator does its work.
    cp /guests/file.img /tmp/disk
    losetup /dev/loop6 /tmp/disk
    start=$(now)
    check "xl create" xl create /guests/bench.cfg
    figure xl_create $(($(now) - start))
    figure xl_create_to_init $(($(up_at "$log" "domU is up") - start))
    figure memory_per_domu $((free - $(free_memory) - 64 * 1024))
    in_domu domu_fork_exec_200
    in_domu domu_read_seq
    in_domu domu_read_4k
    check "it answers ping" ping -c 3 -W 10 192.168.7.2
    figure domu_ping "$(ping -c 50 -i 0.1 192.168.7.2 | sed -n 's#.*= [0-9.]*/\([0-9]*\)\.\([0-9]*\)/.*#\1\2#p')"
    timed xl_destroy xl destroy bench
fi
finish

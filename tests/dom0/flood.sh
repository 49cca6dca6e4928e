#!/bin/sh
# Floods the console, which must stop nobody: domUs make the hypervisor log without end, and dom0 writes without end.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels

# floods NAME: a domU that does nothing but what is logged (tests/guests/src/last_words.rs).
floods() {
    printf 'name = "%s"\nkernel = "/mnt/kernels/psci"\nmemory = 32\nextra = "lines=1 end=flood"\n' "$1" >"/tmp/$1.cfg"
    xl create "/tmp/$1.cfg" && says "$1" '^line 1 of 1'
}

is_logged() { xl dmesg | grep -E '^\(XEN\) d[0-9]+v0 Invalid HVC imm'; }
is_counted() { xl dmesg | grep -E '^\(XEN\) d[0-9]+: [1-9][0-9]* messages suppressed'; }

now() { cut -d. -f1 /proc/uptime; }
# stays_within BYTES: what domUs had logged in some seconds is at most so many bytes in each of them; a second is lost in
# rounding at either end.
stays_within() {
    xl dmesg -c >/dev/null
    began=$(now)
    sleep 10
    xl dmesg -c >/tmp/log
    seconds=$(($(now) - began + 2))
    bytes=$(grep -E 'd[0-9]+v0 Invalid HVC|suppressed' /tmp/log | wc -c)
    echo "$bytes bytes in $seconds seconds"
    [ "$bytes" -gt 0 ] && [ "$bytes" -le $(($1 * seconds)) ]
}

# The shell comes to the end of what it is asked, and so do Xen's tools.
shell_is_alive() {
    for _ in 1 2 3; do
        xl list >/dev/null && xenstore-ls /local >/dev/null || return
    done
}

# Writes line by line on dom0's console, which is the hypervisor's, until /tmp/enough is there.
writes_on() {
    while [ ! -e /tmp/enough ]; do
        echo 'so many words are more than a line of 115,200 baud can carry'
    done >/dev/hvc0
    touch /tmp/written
}

before=$(free_memory)
check "a domU floods the log" floods first
check "so does another one" floods second
check "some of it is logged" eventually is_logged
check "what is left out is counted" eventually is_counted
# An eighth of half a line for each, and as much again for a period's last line.
check "both together are held to what the line carries for them" stays_within 2880
check "dom0's shell is alive" shell_is_alive

writes_on &
check "dom0's shell is alive while dom0 writes" shell_is_alive
check "a domU is destroyed meanwhile" xl destroy first
touch /tmp/enough
check "what dom0 wrote comes to its end" eventually [ -e /tmp/written ]
check "the other domU ends" xl destroy second
check "all its memory is free again, and accounted for" memory_comes_back "$before"
finish

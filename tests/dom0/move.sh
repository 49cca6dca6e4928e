#!/bin/sh
# domUs are saved to a file, and come back from it as if nothing had been but time: with disks, network, and all their CPUs.
# krypton.count=N (2 if not given) rounds of each.
. /tests/lib.sh
. /tests/domu.sh

count=${KRYPTON_COUNT:-2}
saved=/tmp/demo.saved

is_gone() { ! xl domid demo; }
answers_ping() { ping -c 3 -W 10 192.168.7.2; }
# What its kernel and its RCU do not like about time, and all else that is seldom good. grant table: it maps frames that it
# has, after each suspend.
has_no_complaint() {
    answers demo '^looked' "dmesg | grep -Ei 'rcu:|stall|lockup|BUG|WARN|error|fail|hung' | grep -v 'err=-16'; echo look''ed" &&
        ! tail -n 3 /var/log/xen/console/guest-demo.log | grep -Ei 'rcu:|stall|lockup|BUG|WARN|hung'
}
# How far its time of day is behind dom0's.
lag() {
    answers demo '^now [0-9]+' 'echo now $(date +%s)' || return
    there=$(sed -n 's/^now \([0-9]*\).*/\1/p' /var/log/xen/console/guest-demo.log | tail -n 1)
    lag=$(($(date +%s) - there))
    echo "domU $there, $lag seconds behind dom0; at first $first_lag"
}
# As far as at its start, but for the time that the answer takes.
time_is_right() { lag && [ $((lag - first_lag)) -le 3 ] && [ $((lag - first_lag)) -ge -3 ]; }
# A counter in its memory that a process of it goes on with.
counts_on() { answers demo '^count [0-9]+ of' 'echo count $(cat /tmp/count) of'; }
file_is_the_same() {
    answers demo '^sum is [0-9a-f]{64}' "echo 3 >/proc/sys/vm/drop_caches; echo sum is \$(sha256sum </mnt/$1/f)"
    [ "$(sums 'sum of f: ' | tail -n 1)" = "$(sums 'sum is ' | tail -n 1)" ]
}
sums() { sed -n "s/^$1\([0-9a-f]\{64\}\).*/\1/p" /var/log/xen/console/guest-demo.log; }
xls() { pidof xl | wc -w; }
is_saved() { kmove save demo "$saved" && eventually is_gone; }
is_refused_when() { ! kmove restore "$saved" && eventually only_dom0_is_left; }

# round CPUS: with that many.
a_life() {
    cpus=$1
    check "a domU with $cpus CPUs starts" xl create /guests/demo.cfg "vcpus=$cpus"
    lives=$((lives + 1))
    check "it comes up" says demo '^domU is up: ' "$lives"
    check "it writes to its disk" answers demo '^sum of f' 'fill /mnt/xvda/f 4'
    type_on demo 'n=0; while :; do n=$((n+1)); echo $n >/tmp/count; usleep 10000; done &'
    check "it counts" counts_on
    first_lag=
    lag
    first_lag=$lag
    watchers=$(xls)
    check "it goes on behind a checkpoint" kmove checkpoint demo
    check "it answers on its console" counts_on
    check "it answers ping" answers_ping
    check "xl still waits for its end" [ "$(xls)" = "$watchers" ]
    round=1
    while [ "$round" -le "$count" ]; do
        check "it is saved, $round of $count" is_saved
        check "all its memory is free again" memory_comes_back "$free"
        check "the file is whole" kmove verify "$saved"
        check "it is restored" kmove restore "$saved"
        check "it counts on" counts_on
        check "its file is the same" file_is_the_same xvda
        check "its other disk can be written" answers demo '^sum of f' 'fill /mnt/xvdb/f 2 | sed s/f:/g:/; fill /mnt/xvda/f 4'
        check "it answers ping" answers_ping
        check "its clock is right" time_is_right
        check "its kernel has no complaint" has_no_complaint
        check_output "xl list shows it" "^demo +[0-9]+ +12[78] +$cpus +[r-][b-]---- " xl list
        rm -f "$saved"
        round=$((round + 1))
    done
    check_output "xl shutdown -w waits until its kernel has powered it off" 'has been shut down, reason code 0' \
        xl shutdown -w demo
    check "it is gone" eventually is_gone
    check "all its memory is free again" memory_comes_back "$free"
}

# Not `before`, which `answers` has for itself.
free=$(free_memory)
lives=0
for cpus in 1 2 4; do a_life "$cpus"; done
finish

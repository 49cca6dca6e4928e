#!/bin/sh
# krypton.count=N (6 if not given) domUs after another: some are destroyed while they start, some when they are up with
# all their devices in use. The memory is the same before and after each.
. /tests/lib.sh
. /tests/domu.sh

count=${KRYPTON_COUNT:-6}

# A domU that never gets to run its kernel to the end.
young() { xl create /guests/small.cfg && sleep $(($1 % 5)) && xl destroy small; }

# A domU whose disks and network are in use.
busy() {
    rm -f /var/log/xen/console/guest-demo.log
    xl create /guests/demo.cfg && says demo '^domU is up' || return
    type_on demo 'while :; do fill /mnt/xvda/f 4; done'
    says demo '^sum of f' && ping -c 3 -W 10 192.168.7.2 && xl destroy demo
}

# Prints how many bytes of its heap the hypervisor has in use. Xen does not tell.
heap() {
    told_by_keys H | sed -n 's/.*heap: \([0-9]*\) of .*/\1/p' | tail -n 1
}
# The first domU, which uses all there is, makes lists longer than they were, for good. Later ones may add a few pages;
# a leak of one structure for each domU shows over 50 of them.
heap_is_no_larger() {
    now=$(heap)
    echo "heap: $now bytes, after the first cycle: $heap"
    [ "$now" -le $((heap + 16384)) ]
}

first=$(free_memory)
heap=
cycle=1
while [ "$cycle" -le "$count" ]; do
    before=$(free_memory)
    case $((cycle % 3)) in
    1) check "cycle $cycle of $count: a busy domU is destroyed" busy ;;
    *) check "cycle $cycle of $count: a young domU is destroyed" young "$cycle" ;;
    esac
    check "all its memory is free again" memory_comes_back "$before"
    now=$(heap)
    echo "cycle $cycle: heap of $now bytes"
    heap=${heap:-$now}
    cycle=$((cycle + 1))
done
[ -z "$heap" ] || check "the hypervisor's heap has not grown" heap_is_no_larger
echo "heap: $(heap) bytes, after the first cycle: $heap"
echo "free memory: $(free_memory) kB, at first: $first kB"
finish

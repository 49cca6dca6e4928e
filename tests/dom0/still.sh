#!/bin/sh
# Measures how long an idle domU of 128 MiB stands still when it moves: by virtual time, of a machine with one CPU whose
# time counts instructions. The link is a pipe, so that next to nothing of it is the link's.
. /tests/lib.sh
. /tests/domu.sh

# Milliseconds.
most=300

has_moved() {
    kmove send demo -- kmove receive >/tmp/moved 2>&1
    moved=$?
    cat /tmp/moved
    [ "$moved" = 0 ] && xl list demo | grep '^demo .* [r-][b-]----'
}
stood_still() { sed -n 's/.*has moved, and stood still for \([0-9]*\) ms.*/\1/p' /tmp/moved; }
is_short() { still=$(stood_still) && [ -n "$still" ] && [ "$still" -le "$most" ]; }

free=$(free_memory)
check "a domU starts" xl create /guests/demo.cfg
check "it comes up" says demo '^domU is up: '
sleep 10
check "it moves" has_moved
# For docs/performance.md.
grep 'has moved' /tmp/moved
check "it stood still for at most $most ms" is_short
check "it answers ping" ping -c 3 -W 10 192.168.7.2
check "it ends" xl destroy demo
check "all its memory is free again" memory_comes_back "$free"
finish

#!/bin/sh
# Eight domUs at once, each with its own address in the bridge, on fewer CPUs than they are.
. /tests/lib.sh
. /tests/domu.sh

numbers='1 2 3 4 5 6 7 8'

start() {
    xl create /guests/small.cfg "name=\"many$1\"" "extra=\"console=hvc0 cryptomgr.notests domU.address=192.168.7.1$1/24\"" \
        "vif=[\"mac=00:16:3e:00:01:0$1,bridge=xenbr0\"]"
}
all_are_listed() { [ "$(xl list | grep -c '^many[1-8] ')" = 8 ]; }
all_answer() {
    pings=
    for number in $numbers; do
        ping -c 10 -i 0.2 -W 5 "192.168.7.1$number" &
        pings="$pings $!"
    done
    for ping in $pings; do
        wait "$ping" || return
    done
}
all_reach_the_next() {
    for number in $numbers; do
        type_on "many$number" "ping -c 2 -W 20 192.168.7.1$((number % 8 + 1))"
    done
    for number in $numbers; do
        says "many$number" ' 0% packet loss' || return
    done
}

only_dom0_is_left || echo "other domains run: memory may not agree"
before=$(free_memory)
for number in $numbers; do
    check "domU $number of 8 is created" start "$number"
done
for number in $numbers; do
    check "domU $number of 8 is up" says "many$number" '^domU is up'
done
check "xl list shows all 8" all_are_listed
check "all 8 answer ping at the same time" all_answer
check "each reaches the next one over the bridge" all_reach_the_next
for number in $numbers; do
    check "domU $number of 8 is destroyed" xl destroy "many$number"
done
check "all their memory is free again" memory_comes_back "$before"
finish

#!/bin/sh
# A domU's life with all that the hypervisor takes long for: for the build that measures how long interrupts stay masked
# (make bench ARGS=latency). One vCPU only, since two of them that wait for each other's locks on one counted CPU take QEMU
# hours.
. /tests/lib.sh
. /tests/domu.sh

answers_ping() { ping -c 10 -i 0.1 -W 5 192.168.7.2; }
has_memory() { [ "$(xl list demo | awk 'NR == 2 { print $3 }')" = "$1" ]; }
new_id() { [ "$(xl domid demo)" != "$1" ]; }
is_gone() { ! xl domid demo; }
dumps() { xl dump-core demo /tmp/core && rm /tmp/core; }

before=$(free_memory)
check "a domU starts" xl create /guests/demo.cfg vcpus=1
check "it is up" says demo '^domU is up'
first=$(xl domid demo)
check "it writes to a disk on a device" answers demo '^sum of phy: ' fill /mnt/xvda/phy 8
check "it writes to a disk in a file" answers demo '^sum of file: ' fill /mnt/xvdb/file 8
check "it answers ping" answers_ping
check "it is paused" xl pause demo
check "its memory is dumped" dumps
check "it goes on" xl unpause demo
check "it is asked for half its memory" xenstore-write "/local/domain/$first/memory/target" $((64 * 1024))
check "it gives that" eventually has_memory 64
check "it is given it again" xenstore-write "/local/domain/$first/memory/target" $((128 * 1024))
check "it takes that" eventually has_memory 128
check "its weight changes" xl sched-credit2 -d demo -w 512 -c 50
check "the hypervisor tells all it knows" xl debug-keys qrdm
check "it is rebooted" xl reboot demo
check "it is another domain" eventually new_id "$first"
check "that is up" says demo '^domU is up' 2
type_on demo 'while :; do fill /mnt/xvda/f 4; done'
check "it is busy" says demo '^sum of f:'
check "it is destroyed" xl destroy demo
check "it is gone" eventually is_gone
check "all its memory is free again" memory_comes_back "$before"
finish

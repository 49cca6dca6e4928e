#!/bin/sh
# A domU's life with everything that xl has for it: console, disks, network, pause, reboot, shutdown, destroy.
. /tests/lib.sh
. /tests/domu.sh

log=/var/log/xen/console/guest-demo.log

sum_in_domu() { sed -n "s/^sum of $1: \([0-9a-f]*\).*/\1/p" "$log" | tail -n 1; }

# file_is_the_same DEVICE FILE: dom0 reads what the domU wrote. `-t ext4` for a loop device too.
file_is_the_same() {
    mount -o ro "$1" /mnt || return
    sum=$(sha256sum <"/mnt/$2")
    umount /mnt
    [ "${sum%% *}" = "$(sum_in_domu "$2")" ]
}

is_not_paused() { ! is_paused demo; }
does_not_answer() { ! ping -c 2 -W 2 192.168.7.2; }
# A domU's network needs a moment after its kernel's "up"; ten tries, one answer is enough to go on.
answers_ping() { ping -c 10 -W 5 192.168.7.2; }
uses_memory() {
    now=$(free_memory)
    echo "memory: $now kB, before: $before kB"
    [ "$now" -lt $((before - 128 * 1024)) ]
}
is_gone() { ! xl domid demo; }
new_id() { [ "$(xl domid demo)" != "$1" ]; }

only_dom0_is_left || echo "other domains run: memory may not agree"
before=$(free_memory)
echo "free memory: $before kB"

check "xl create starts the domU" xl create /guests/demo.cfg
first=$(xl domid demo)
check "its console shows its kernel and both its CPUs" says demo '^domU is up: 2 CPUs'
check_output "xl list shows it" "^demo +$first +128 +2 +" xl list
check_output "xl vcpu-list shows its second vCPU" "^demo +$first +1 " xl vcpu-list
check "its memory is taken from the free memory" uses_memory
# shellcheck disable=SC2016 # the domU's shell is to expand it
check "what is typed on its console arrives" answers demo '^answer 42' 'echo answer $((6 * 7))'

check "it writes 8 MiB to a disk on a device" answers demo '^sum of phy: [0-9a-f]{64}' fill /mnt/xvda/phy 8
check "it writes 8 MiB to a disk in a file" answers demo '^sum of file: [0-9a-f]{64}' fill /mnt/xvdb/file 8

check "it answers ping" answers_ping
check_output "no packet of 50 is lost" ' 0% packet loss' ping -c 50 -i 0.1 -s 1400 -W 10 192.168.7.2
check "it reaches dom0" answers demo ' 0% packet loss' ping -c 5 -W 10 192.168.7.1

check "xl pause stops it" xl pause demo
check "xl list shows the pause" is_paused demo
check "a paused domU does not answer" does_not_answer
check "xl unpause lets it go on" xl unpause demo
check "xl list shows no pause" is_not_paused
check "it answers ping again" answers_ping

check "xl reboot is heard" xl reboot demo
check "it starts again as a new domain" eventually new_id "$first"
check "its console shows the second start" says demo '^domU is up: 2 CPUs' 2
check "it has its network again" answers_ping

check "xl shutdown is heard" xl shutdown demo
check "it is gone after its kernel has powered it off" eventually is_gone
check "dom0 reads from the device what the domU wrote" file_is_the_same /dev/data phy
losetup /dev/loop7 /guests/file.img
check "dom0 reads from the file what the domU wrote" file_is_the_same /dev/loop7 file
losetup -d /dev/loop7
check "all its memory is free again" memory_comes_back "$before"

check "xl create starts it a third time" xl create /guests/demo.cfg
check "it is up a third time" says demo '^domU is up: 2 CPUs' 3
check "xl destroy ends it while it runs" xl destroy demo
check "all its memory is free again, and no domain is left" memory_comes_back "$before"
# The runner compares, after the machine has gone, with the file that the device was.
echo "data disk: sha256 $(sha256sum </dev/data)"
echo "free memory: $(free_memory) kB"
finish

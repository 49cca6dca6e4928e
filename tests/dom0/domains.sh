#!/bin/sh
# A domU's life with everything that xl has for it: console, disks, network, pause, CPUs and memory, devices that come and
# go, reboot, shutdown, destroy.
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
answers_ping() { ping -c 10 -i 0.2 -W 5 192.168.7.2; }
uses_memory() {
    now=$(free_memory)
    echo "memory: $now kB, before: $before kB"
    [ "$now" -lt $((before - 128 * 1024)) ]
}
is_gone() { ! xl domid demo; }
# Between its two lives it has none.
new_id() { id=$(xl domid demo) && [ "$id" != "$1" ]; }

# By the program that `xl console` runs, which reads what is typed from a terminal only, unless it is told to; it ends with
# its input.
talks_through_xenconsole() {
    # shellcheck disable=SC2016 # the domU's shell is to expand it
    { echo 'echo heard $((6 * 9))' && says demo '^heard 54' >&2 && sleep 2; } |
        xenconsole "$first" --interactive >/tmp/console
    grep '^heard 54' /tmp/console
}
shows_on_xl_console() {
    xl console demo </dev/null >/tmp/console &
    sleep 1
    # shellcheck disable=SC2016 # the domU's shell is to expand it
    type_on demo 'echo seen $((6 * 8))'
    eventually grep '^seen 48' /tmp/console
    seen=$?
    kill $!
    return "$seen"
}

has_memory() { [ "$(xl list demo | awk 'NR == 2 { print $3 }')" = "$1" ]; }
# vcpu_is VCPU STATE: by the column of `xl vcpu-list`; one that is switched off has a p, and no CPU.
vcpu_is() { xl vcpu-list demo | awk -v vcpu="$1" '$3 == vcpu { print $5 }' | grep "$2"; }
vcpu_is_on() { [ "$(xl vcpu-list demo | awk '$3 == 1 { print $5 }')" != --p ]; }
is_renamed() { xl rename demo other && xl domid other && ! xl domid demo && xl rename other demo; }
# has_all_but MEBIBYTES OF: it said so when it was up.
has_all_but() {
    found=$(sed -n 's/^domU is up: .*, \([0-9]*\) kB.*/\1/p' /var/log/xen/console/guest-small.log)
    echo "$found kB of $2 MiB"
    [ "$found" -ge $((($2 - $1) * 1024)) ]
}
is_shut_down() { xl list small | awk 'NR == 2 { print $5 }' | grep s; }
# xl says so, and ends well all the same.
is_refused() { xl trigger demo nmi 2>&1 | grep 'Function not implemented'; }
has_no() { ! xl "$1" demo | grep "$2"; }

only_dom0_is_left || echo "other domains run: memory may not agree"
before=$(free_memory)
echo "free memory: $before kB"

check "xl create starts the domU" xl create /guests/demo.cfg
first=$(xl domid demo)
check "its console shows its kernel and both its CPUs" says demo '^domU is up: 2 CPUs'
check_output "xl list shows it" "^demo +$first +128 +2 +[r-][b-][p-][s-][c-][d-] +[0-9]+\.[0-9]$" xl list
check_output "xl vcpu-list shows its second vCPU" "^demo +$first +1 +([0-9]+|-) +[r-][b-][p-] +[0-9]+\.[0-9] +all / all$" \
    xl vcpu-list
check_output "xentop shows it" '^ +demo [-d][-s][-b][-p][-c][-r] +[0-9]+ +[0-9]+\.[0-9] +1310[0-9][0-9] ' xentop -b -i 2 -d 1
check "its memory is taken from the free memory" uses_memory
# shellcheck disable=SC2016 # the domU's shell is to expand it
check "what is typed on its console arrives" answers demo '^answer 42' 'echo answer $((6 * 7))'
check "xl console shows it" shows_on_xl_console
check "xenconsole types on it" talks_through_xenconsole

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

check "xl vcpu-pin is heard" xl vcpu-pin demo 1 0
check_output "xl vcpu-list shows the pinned vCPU" "^demo +$first +1 +0 +[r-][b-][p-] +[0-9]+\.[0-9] +0 / all$" xl vcpu-list
check "xl vcpu-pin lets it free" xl vcpu-pin demo 1 all
check "xl vcpu-set takes a CPU away" xl vcpu-set -i demo 1
check "its kernel switches that CPU off" eventually vcpu_is 1 p
check "xl vcpu-set gives it back" xl vcpu-set -i demo 2
# Linux leaves that to udev, which this domU does not have.
type_on demo 'echo 1 >/sys/devices/system/cpu/cpu1/online'
check "its kernel switches that CPU on" eventually vcpu_is_on

# Debian's xl mem-set fails an assertion of its own before it asks anybody: this is what it would write.
check "it is asked to give memory back" xenstore-write "/local/domain/$first/memory/target" $((96 * 1024))
check "it gives 32 MiB back" eventually has_memory 96
check "it is given it again" xenstore-write "/local/domain/$first/memory/target" $((128 * 1024))
check "it takes them" eventually has_memory 128

truncate -s 8M /tmp/more.img
check "xl block-attach is heard" xl block-attach demo format=raw,vdev=xvdd,access=rw,target=/tmp/more.img
check "it finds the disk" answers demo '^16384' 'until grep 16384 /sys/block/xvdd/size; do sleep 1; done 2>/dev/null'
check_output "xl block-list shows three" "^51760 +0 +$first +4 " xl block-list demo
check "xl block-detach is heard" xl block-detach demo xvdd
check "the disk is gone" eventually has_no block-list '^51760'
check "xl network-attach is heard" xl network-attach demo mac=00:16:3e:00:00:aa,bridge=xenbr0
check "it finds the interface" answers demo '00:16:3e:00:00:aa' 'until ip link show eth1; do sleep 1; done 2>/dev/null'
check_output "xl network-list shows two" '^1 +0 +00:16:3e:00:00:aa ' xl network-list demo
check "xl network-detach is heard" xl network-detach demo 1
check "the interface is gone" eventually has_no network-list '^1 '

check "xl rename gives it another name and back" is_renamed
check "xl config-update is heard" xl config-update demo /guests/demo.cfg
check "xl sysrq is heard" xl sysrq demo h
check "its kernel answers" says demo 'sysrq: HELP'
check "xl trigger is refused as Xen does" is_refused

check "xl reboot is heard" xl reboot demo
check "it starts again as a new domain" eventually new_id "$first"
check "its console shows the second start" says demo '^domU is up: 2 CPUs' 2
check "it has its network again" answers_ping

check_output "xl shutdown -w waits until its kernel has powered it off" 'Domain [0-9]+ has been shut down, reason code 0' \
    xl shutdown -w demo
check "it is gone" eventually is_gone
check "dom0 reads from the device what the domU wrote" file_is_the_same /dev/data phy
losetup /dev/loop7 /guests/file.img
check "dom0 reads from the file what the domU wrote" file_is_the_same /dev/loop7 file
losetup -d /dev/loop7
check "all its memory is free again" memory_comes_back "$before"

# Leaves 16 MiB for its tables and structures.
most=$(($(xl info free_memory) - 16))
check "a domU with nearly all memory there is starts" \
    xl create /guests/small.cfg memory=$most 'extra="console=hvc0 cryptomgr.notests panic=1"' 'on_reboot="preserve"'
check "its kernel comes up" says small '^domU is up: 1 CPU'
check "it has that memory" has_all_but 32 "$most"
# Linux on Arm tells nobody that it panicked: it stands still for ever, or asks for a restart.
type_on small 'echo c >/proc/sysrq-trigger'
check "its kernel panics" says small 'Kernel panic - not syncing: sysrq'
check "it asks for a restart, as panic=1 wants" eventually is_shut_down
check "xl destroy takes it away" xl destroy small
check "all its memory is free again" memory_comes_back "$before"

# With its console: xl stays until that is gone.
xl create -c /guests/demo.cfg vcpus=8 vpmu=1 </dev/null >/tmp/console 2>&1 &
check "xl create -c shows that it starts with 8 CPUs and performance monitors" eventually grep '^domU is up: 8 CPUs' /tmp/console
check "xl destroy ends it while it runs" xl destroy demo
check "all its memory is free again, and no domain is left" memory_comes_back "$before"
# The runner compares, after the machine has gone, with the file that the device was.
echo "data disk: sha256 $(sha256sum </dev/data)"
echo "free memory: $(free_memory) kB"
finish

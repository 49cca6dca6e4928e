#!/bin/sh
# domUs are saved to a file, and come back from it as if nothing had been but time: with disks, network, and all their CPUs.
# krypton.count=N (1 if not given) rounds with two CPUs, of which the last of each domU is ballooned, and if there are more than
# one, one with one CPU and one with four. A domU moves through a pipe while it runs and writes, and goes on where it was when that breaks.
# It has two disks and two interfaces.
. /tests/lib.sh
. /tests/domu.sh
. /tests/moved.sh

# The folder with its kernel and RAM disk, and the version of that (trixie.sh has another one).
kernels=${kernels:-/guests}
linux=${linux:-6.1}
count=${KRYPTON_COUNT:-1}
# Rounds for which the memory of one domU is enough: its netfront loses 4 MiB in each (docs/migration.md).
most=5

answers_ping() { ping -c 3 -W 10 192.168.7.2 && ping -c 2 -i 0.2 -W 10 192.168.8.2; }
# Its other interface has another network in the same bridge, and answers for itself alone.
is_on_two_networks() {
    answers demo '^second is up' 'echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; ip address add 192.168.8.2/24 dev eth1; ip link set eth1 up; echo second is u""p' &&
        eventually answers_ping
}
# A counter in its memory that a process of it goes on with.
counts_on() { answers demo '^count [0-9]+ of' 'echo count $(cat /tmp/count) of'; }
file_is_the_same() {
    answers demo '^sum is [0-9a-f]{64}' "echo 3 >/proc/sys/vm/drop_caches; echo sum is \$(sha256sum </mnt/$1/f)"
    [ "$(sums 'sum of f: ' | tail -n 1)" = "$(sums 'sum is ' | tail -n 1)" ]
}
sums() { sed -n "s/^$1\([0-9a-f]\{64\}\).*/\1/p" /var/log/xen/console/guest-demo.log; }
xls() { pidof xl | wc -w; }
has_memory() { [ "$(xl list demo | awk 'END { print $3 }')" = "$1" ]; }
# A byte in the middle of the file is another one.
is_damaged() {
    cp "$saved" /tmp/damaged && printf '\252' | dd of=/tmp/damaged bs=1 seek=3000000 conv=notrunc 2>/dev/null || return
    ! kmove verify /tmp/damaged && ! kmove restore /tmp/damaged && only_dom0_is_left
}
is_cut() {
    head -c 3000000 "$saved" >/tmp/damaged
    ! kmove restore /tmp/damaged && only_dom0_is_left && rm /tmp/damaged
}
# fails_to_move OPTION COMMAND...: through that command, and kmove says that it runs on.
fails_to_move() {
    option=$1
    shift
    # shellcheck disable=SC2086 # an option or nothing
    ! kmove send demo $option -- "$@" >/tmp/moved 2>&1 && cat /tmp/moved && grep -q 'demo runs on' /tmp/moved
}
# Files in its memory that are written all the time, each compared before that with what was written there last.
writes_on() {
    type_on demo 'n=0; while :; do n=$((n+1)); i=$((n%8)); [ $n -le 8 ] || [ "$(sha256sum </tmp/w$i)" = "$(cat /tmp/s$i)" ] || echo "to""rn"; head -c 100000 /dev/urandom >/tmp/w$i; sha256sum </tmp/w$i >/tmp/s$i; echo $n >/tmp/m; mv /tmp/m /tmp/n; usleep 50000; done &'
    answers demo '^writer' 'writer=$!; until [ -f /tmp/n ]; do sleep 1; done; echo writer'
}
# Each of the files has been compared since.
nothing_is_torn() {
    answers demo '^all of' 'n=$(cat /tmp/n); until [ $(cat /tmp/n) -gt $((n+9)) ]; do sleep 1; done; kill $writer; echo all of them' &&
        ! grep '^torn' /var/log/xen/console/guest-demo.log
}

# a_life CPUS ROUNDS
a_life() {
    cpus=$1
    rounds=$2
    check "a domU with $cpus CPUs starts" xl create /guests/demo.cfg "vcpus=$cpus" \
        "kernel=\"$kernels/vmlinuz\"" "ramdisk=\"$kernels/initrd.gz\"" \
        'vif=["mac=00:16:3e:00:00:01,bridge=xenbr0","mac=00:16:3e:00:00:02,bridge=xenbr0"]'
    lives=$((lives + 1))
    check "it comes up" says demo '^domU is up: ' "$lives"
    check "its kernel is Linux $linux" said demo "Linux version $linux\."
    check "it writes to its disk" answers demo '^sum of f' 'fill /mnt/xvda/f 4'
    # In one step, so that nobody reads half of it.
    type_on demo 'n=0; while :; do n=$((n+1)); echo $n >/tmp/next; mv /tmp/next /tmp/count; usleep 10000; done &'
    check "it counts" counts_on
    check "it answers on both of its networks" is_on_two_networks
    first_lag=
    lag
    first_lag=$lag
    watchers=$(xls)
    check "it goes on behind a checkpoint" kmove checkpoint demo
    check "it answers on its console" counts_on
    check "it answers ping" answers_ping
    check "xl still waits for its end" [ "$(xls)" = "$watchers" ]
    round=1
    while [ "$round" -le "$rounds" ]; do
        if [ "$cpus" = 2 ] && [ "$round" = "$rounds" ]; then
            check "it is asked to give memory back" xenstore-write "/local/domain/$(xl domid demo)/memory/target" $((96 * 1024))
            check "it gives 32 MiB back" eventually has_memory 96
        fi
        check "it is saved, $round of $rounds" is_saved
        check "all its memory is free again" memory_comes_back "$free"
        check "the file is whole" kmove verify "$saved"
        if [ "$cpus $round" = "2 1" ]; then
            check "a damaged file is refused, and leaves nothing" is_damaged
            check "a file that is cut off too" is_cut
        fi
        check "it is restored" xl restore "$saved"
        check "it counts on" counts_on
        check "its file is the same" file_is_the_same xvda
        check "its other disk can be written" answers demo '^sum of f' 'fill /mnt/xvdb/f 2 | sed s/f:/g:/; fill /mnt/xvda/f 4'
        check "it answers ping" answers_ping
        check "its clock is right" time_is_right
        check "its kernel has no complaint" has_no_complaint
        check_output "xl list shows it" "^demo +[0-9]+ +(128|96) +$cpus +[r-][b-]---- " xl list
        rm -f "$saved"
        round=$((round + 1))
    done
    if [ "$cpus" = 2 ]; then
        check "it is given its memory again" xenstore-write "/local/domain/$(xl domid demo)/memory/target" $((128 * 1024))
        check "it takes it" eventually has_memory 128
        check "it writes all the time" writes_on
        check "it goes on when nobody receives it" fails_to_move '' false
        check "it goes on when the link breaks" fails_to_move '' sh -c 'head -c 9000000 >/dev/null'
        check "it goes on when the link breaks, suspended" fails_to_move --no-live sh -c 'head -c 9000000 >/dev/null'
        check "it goes on when the other side cannot" fails_to_move '' sh -c '(sleep 5; echo sorry) & exec cat >/dev/null'
        check "it answers on its console" counts_on
        check "it moves while it runs" moves
        check "few pages were sent again, each by at most two faults" was_live
        check "what it wrote meanwhile is whole" nothing_is_torn
        check "it counts on" counts_on
        check "its file is the same" file_is_the_same xvda
        check "it answers ping" answers_ping
        check "its kernel has no complaint" has_no_complaint
    fi
    check_output "xl shutdown -w waits until its kernel has powered it off" 'has been shut down, reason code 0' \
        xl shutdown -w demo
    check "it is gone" eventually is_gone
    check "all its memory is free again" memory_comes_back "$free"
}

ip address add 192.168.8.1/24 dev xenbr0
# Not `before`, which `answers` has for itself.
free=$(free_memory)
lives=0
left=$count
while [ "$left" -gt 0 ]; do
    a_life 2 $((left < most ? left : most))
    left=$((left - most))
done
if [ "$count" -gt 1 ]; then
    a_life 1 1
    a_life 4 1
fi
finish

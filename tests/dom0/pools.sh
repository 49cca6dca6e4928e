#!/bin/sh
# CPU pools, claims and shares, with Xen's own tools: what runs where, and how much of it. Needs two CPUs.
. /tests/lib.sh
. /tests/domu.sh

# A domU that does nothing but compute, in as little as it takes: memory that is all zeroes but for its header.
# b to itself, and the header of Linux' images: magic, start (anywhere), end.
make_hog() {
    {
        printf '\376\377\377\352'
        head -c 32 /dev/zero
        printf '\030\050\157\001\000\000\000\000\000\020\000\000'
    } >/tmp/hog
    truncate -s 4096 /tmp/hog
    printf 'name = "%s"\nkernel = "/tmp/hog"\nmemory = 32\nvcpus = %s\n' "$1" "$2" >"/tmp/$1.cfg"
}

is_in_pool() { [ "$(xl list -c "$1" | awk 'END { print $NF }')" = "$2" ]; }
pool_is() { xl cpupool-list | grep -E "^$1 +$2 +credit2 +y +$3$"; }
cpus_of_pool() { [ "$(xl cpupool-list -c | awk -v pool="$1" '$1 == pool { print $2 }')" = "$2" ]; }
refuses() { ! "$@"; }

# ran NAME: CPU seconds, a decimal.
ran() { xl list "$1" | awk 'END { print $NF }'; }
# share NAME SECONDS: percent of one CPU that the domain has in that time, by the hypervisor's own clock.
share() {
    start=$(ran "$1")
    began=$(cut -d' ' -f1 /proc/uptime)
    sleep "$2"
    end=$(ran "$1")
    ended=$(cut -d' ' -f1 /proc/uptime)
    echo "$start $end $began $ended" | awk '{ printf "%d\n", 100 * ($2 - $1) / ($4 - $3) }'
}
# has_share NAME LOW HIGH
has_share() {
    found=$(share "$1" 5)
    echo "$1 has $found % of a CPU"
    [ "$found" -ge "$2" ] && [ "$found" -le "$3" ]
}
# stays_on CPU: five looks, during which dom0 runs here and there.
stays_on() {
    for _ in 1 2 3 4 5; do
        [ "$(xl vcpu-list hog | awk 'END { print $4 }')" = "$1" ] || return
    done
}
is_made_again() { xl destroy "$1" && xl create "/tmp/$1.cfg"; }
# The first has about three times what the second has.
has_three_times() {
    first=$(ran "$1") second=$(ran "$2")
    sleep 8
    echo "$first $(ran "$1") $second $(ran "$2")" |
        awk '{ r = ($2 - $1) / ($4 - $3); print r; exit !(r > 2.3 && r < 3.9) }'
}

before=$(free_memory)

check "a CPU can be taken out of the pool" xl cpupool-cpu-remove Pool-0 1
check "it is free then" [ "$(xl info free_cpus)" = 1 ]
# xl does not tell by its exit code.
check_output "CPU 0 stays in pool 0" 'cpu 0 from cpupool: Invalid argument' xl cpupool-cpu-remove Pool-0 0
check_output "a CPU is not taken from where it is not" 'Cannot assign requested address' xl cpupool-cpu-remove Pool-0 1
make_hog hog 1
if is_krypton; then
    # Debian's Xen has no such scheduler.
    check "a pool of the null scheduler is made" xl cpupool-create 'name="alone"' 'sched="null"' 'cpus=["1"]'
    check_output "it is listed" '^alone +1 +null +y +0$' xl cpupool-list
    check "a domain is made there" xl create /tmp/hog.cfg 'pool="alone"'
    check_output "it runs on the pool's CPU" '^hog +[0-9]+ +0 +1 +' xl vcpu-list hog
    check "it has all of it" has_share hog 90 110
    check "it ends" xl destroy hog
    check "the pool is taken apart" eventually xl cpupool-destroy alone
fi
check "a pool is made with the free CPU" xl cpupool-create 'name="second"' 'cpus=["1"]'
check "it is listed" pool_is second 1 0
check "with its CPU" cpus_of_pool second 1
check "it is given a rate limit of its own" xl sched-credit2 -s -p second -r 5000
check_output "and has it" '^Cpupool second: .*ratelimit=5000us' xl sched-credit2 -s -p second
check "a second one of that name is refused" refuses xl cpupool-create 'name="second"' 'cpus=["1"]'
check "dom0's pool is not destroyed" refuses xl cpupool-destroy Pool-0

check "a domain is made in the pool" xl create /tmp/hog.cfg 'pool="second"'
check "it is there" is_in_pool hog second
check "the pool counts it" pool_is second 1 1
check_output "it runs on the pool's CPU" '^hog +[0-9]+ +0 +1 +' xl vcpu-list hog
check_output "a pool with a domain keeps its last CPU" 'Device or resource busy' xl cpupool-cpu-remove second 1
check "and is not destroyed" refuses xl cpupool-destroy second
check "the domain has the whole CPU, whatever dom0 does" has_share hog 90 110

check "a cap is set" xl sched-credit2 -d hog -c 30
check "and holds" has_share hog 24 36
check "the cap is taken away" xl sched-credit2 -d hog -c 0

make_hog other 1
check "a second domain is made in the pool" xl create /tmp/other.cfg 'pool="second"'
check "a weight is set" xl sched-credit2 -d hog -w 768
check "three times the weight is three times the time" has_three_times hog other
check "the second domain ends" xl destroy other

check "dom0 itself does not move" refuses xl cpupool-migrate Domain-0 second
if is_krypton; then
    make_hog wide 2
    check "a domain with two vCPUs is made there" xl create /tmp/wide.cfg 'pool="second"'
    check "it moves to dom0's pool" xl cpupool-migrate wide Pool-0
    check "it is there" is_in_pool wide Pool-0
    check "it ends" xl destroy wide
    check "the domain moves to dom0's pool" xl cpupool-migrate hog Pool-0
    check "it is there" is_in_pool hog Pool-0
else
    # Xen panics at each of the two moves: "Unexpected Trap: Data Abort" in credit2's update_runq_load.
    check "the domain is made again in dom0's pool" is_made_again hog
fi
check "its pool is destroyed then" xl cpupool-destroy second
check "and is not listed" refuses pool_is second 0 0
check "its CPU is free" [ "$(xl info free_cpus)" = 1 ]
check "the CPU comes back" xl cpupool-cpu-add Pool-0 1
check "no CPU is free" [ "$(xl info free_cpus)" = 0 ]
check "the pools are made after the machine's nodes, of which there is one" xl cpupool-numa-split
check "the pool has its name" pool_is Pool-node0 2 2
for cpu in 0 1; do
    check "it is bound to CPU $cpu" xl vcpu-pin hog 0 $cpu
    check "and stays there" stays_on $cpu
done
check "the domain ends" xl destroy hog

# sent_to VCPU CPUS: the interrupts of devices that dom0 sends to that vCPU, all of them, come to those CPUs, a bit each.
sent_to() {
    told=$(told_by_keys q | awk -v vcpu="d0v$1" '
        / VCPU[0-9]+: / { is_it = index($0, " " vcpu " ") }
        is_it && /pirq [0-9]+: to CPUs/ { print $NF }' | sort -u)
    echo "$told"
    [ "$told" = "$2" ]
}
# A disk's interrupts arrive.
reads_a_disk() { dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct; }
if is_krypton; then
    for cpu in 1 0; do
        check "dom0's vCPU 0 moves to CPU $cpu" xl vcpu-pin Domain-0 0 $cpu
        check "the interrupts of its devices follow" eventually sent_to 0 0x$((1 << cpu))
        check "and arrive" reads_a_disk
    done
    check "dom0's vCPU 0 may be anywhere again" xl vcpu-pin Domain-0 0 all
fi

check_output "credit2 is the scheduler of the pool" '^Cpupool Pool-node0: .*ratelimit=1000us' xl sched-credit2 -s -p Pool-node0
check "another scheduler has nothing to show" xl sched-credit
check "all memory is free again, and accounted for" memory_comes_back "$before"
finish

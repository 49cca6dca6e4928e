#!/bin/sh
# Two domUs under load: the network between them and to dom0 (iperf3), a disk that is checked block by block (fio), their
# CPUs (stress-ng for krypton.seconds=N, 10 if not given) while dom0 uses its own disk. Then a third one is killed in the
# middle of its disk writes, krypton.count=N times (2 if not given), and the others notice nothing of it.
. /tests/lib.sh
. /tests/domu.sh

seconds=${KRYPTON_SECONDS:-10}
count=${KRYPTON_COUNT:-2}

# start NAME NUMBER WORDS...: a domU with the tools, an address of its own, and what else xl is told.
start() {
    name=$1
    number=$2
    shift 2
    xl create /guests/small.cfg "name=\"$name\"" "extra=\"console=hvc0 cryptomgr.notests domU.address=192.168.7.$number/24\"" \
        "vif=[\"mac=00:16:3e:00:00:0$number,bridge=xenbr0\"]" "$@"
}

tools='phy:/dev/tools,xvdc,r'
start_left() { start left 2 memory=128 vcpus=2 "disk=[\"phy:/dev/data,xvda,w\",\"$tools\"]"; }
start_right() { start right 3 memory=96 "disk=[\"$tools\"]"; }
start_victim() { start victim 4 'disk=["format=raw,vdev=xvda,access=rw,target=/guests/file.img"]'; }

# Sends for 3 seconds; it fails when the other end does not answer.
sends_to() { with_tools iperf3 --client "$1" --time 3; }
carries() { answers "$1" '^iperf3 0' "iperf3 --client $2 --time 3; echo iperf3 \$?"; }

# Every block holds a checksum of its own contents; the file is written in random order, then read back.
fio='fio --name=verified --filename=/mnt/xvda/fio --size=1M --rw=randwrite --bs=4k --direct=1 --ioengine=psync'
fio="$fio --verify=crc32c --do_verify=1 --verify_fatal=1 --thread --eta=never --output=/tmp/fio"

# dom0_uses_its_disk: until the domU's load has ended.
dom0_uses_its_disk() {
    rounds=0
    until said left '^stress-ng [0-9]'; do
        dd if=/dev/urandom of=/guests/work bs=1M count=4 conv=fsync 2>/dev/null || return
        sum=$(sha256sum </guests/work)
        echo 3 >/proc/sys/vm/drop_caches
        [ "$(sha256sum </guests/work)" = "$sum" ] || return
        rounds=$((rounds + 1))
        [ "$rounds" -lt 10000 ] || return
    done
    rm /guests/work
    echo "$rounds rounds"
}

# The time since its start that a domU's clock shows lies between two looks at dom0's: FROM DOMU TO.
look_at_clock() {
    from=$(cut -d' ' -f1 /proc/uptime)
    # shellcheck disable=SC2016 # the domU's shell is to expand it
    answers right '^clock [0-9]' 'echo clock $(cut -d" " -f1 /proc/uptime)' >/dev/null || return
    echo "$from $(sed -n 's/^clock \([0-9.]*\).*/\1/p' /var/log/xen/console/guest-right.log | tail -n 1) $(cut -d' ' -f1 /proc/uptime)"
}
# clock_ran_right FIRST LAST: as much time has passed in the domU as in dom0, as far as the looks can tell.
clock_ran_right() {
    echo "$1 $2"
    echo "$1 $2" | awk '{ passed = $5 - $2; exit !(NF == 6 && passed >= $4 - $3 - 0.1 && passed <= $6 - $1 + 0.1) }'
}

# Its first bytes are on the way when it is killed.
victim_is_killed() {
    rm -f /var/log/xen/console/guest-victim.log
    start_victim && says victim '^domU is up' || return
    type_on victim 'echo writes; while :; do dd if=/dev/zero of=/mnt/xvda/f bs=64k count=128 conv=fsync; done 2>/dev/null'
    says victim '^writes' && sleep $(($1 % 4)) && xl destroy victim
}

only_dom0_is_left || echo "other domains run: memory may not agree"
before=$(free_memory)
check "a domU starts" start_left
check "a second one starts" start_right
check "the first one is up" says left '^domU is up: 2 CPUs'
check "the second one is up" says right '^domU is up: 1 CPU'

check "the second one serves iperf3" answers right '^serves' 'iperf3 --server --daemon && echo serves'
check "iperf3 from dom0 to a domU" sends_to 192.168.7.3
check "iperf3 from one domU to the other" carries left 192.168.7.3
with_tools iperf3 --server --daemon
check "iperf3 from a domU to dom0" carries left 192.168.7.1
check "fio finds each block on the disk as it was written" answers left '^fio 0' "$fio; echo fio \$?"

clock=$(look_at_clock)
type_on left "stress-ng --cpu 2 --vm 1 --vm-bytes 16M --verify --timer 1 --fork 2 --timeout ${seconds}s --temp-path /tmp; \
echo stress-ng \$?"
patience=$((patience + 3 * seconds))
check "dom0 reads what it wrote while a domU is under stress" dom0_uses_its_disk
check "the domU survives $seconds s of stress" said left '^stress-ng 0'
check "another domU's clock went right meanwhile" clock_ran_right "$clock" "$(look_at_clock)"

type_on left "(while [ ! -e /tmp/end ]; do $fio || exit; done; echo; echo rounds of fio \$((40 + 2))) &"
cycle=1
while [ "$cycle" -le "$count" ]; do
    check "a third domU is killed in the middle of its writes ($cycle of $count)" victim_is_killed "$cycle"
    cycle=$((cycle + 1))
done
check_output "no packet to another domU is lost" ' 0% packet loss' ping -c 20 -i 0.2 -W 10 192.168.7.3
type_on left 'touch /tmp/end'
check "the disk of another domU is unharmed" says left '^rounds of fio 42'
check "the first domU is destroyed" xl destroy left
check "the second domU is destroyed" xl destroy right
check "all their memory is free again" memory_comes_back "$before"
finish

#!/bin/sh
# A domU on a board: console, a disk, a network. The machine has no disk that dom0 has a driver for, so what the domU is made
# of is in dom0's own RAM disk (tests/runner/src/boards.rs), its disk is a file there, and the bridge leads to dom0 alone.
. /tests/lib.sh
. /tests/domu.sh

disk=/tmp/disk.img
cat >/tmp/board.cfg <<END
name = "board"
kernel = "/guests/vmlinuz"
ramdisk = "/guests/initrd.gz"
extra = "console=hvc0 domU.address=192.168.7.2/24"
memory = 96
vcpus = 2
disk = ["format=raw,vdev=xvda,access=rw,target=$disk"]
vif = ["mac=00:16:3e:00:00:01,bridge=xenbr0"]
END

makes_a_disk() { dd if=/dev/urandom of="$disk" bs=64k count=16 && sum=$(sha256sum <"$disk") && sum=${sum%% *}; }
makes_a_bridge() {
    ip link add xenbr0 type bridge && ip address add 192.168.7.1/24 dev xenbr0 && ip link set xenbr0 up
}
is_up() { says board '^domU is up: '; }
reads_the_disk() { answers board "^$sum" 'sha256sum </dev/xvda'; }
# dom0 reads it once the domU has ended.
writes_the_disk() {
    # shellcheck disable=SC2016 # the domU's shell is to expand it
    answers board '^written 42' 'dd if=/dev/zero of=/dev/xvda bs=64k count=1 && sync && echo written $((6 * 7))'
}
has_an_address() { answers board 'inet 192\.168\.7\.2' 'ip address'; }
answers_ping() { ping -c 10 -i 0.2 -W 5 192.168.7.2; }
is_on_every_cpu() { [ "$(nproc)" = "$(xl info nr_cpus)" ]; }
has_zeroes() { [ "$(head -c 65536 "$disk" | tr -d '\0' | wc -c)" = 0 ]; }

check "dom0 has a vCPU on every CPU" is_on_every_cpu
check "a file becomes a disk" makes_a_disk
check "dom0 has a bridge" makes_a_bridge
before=$(free_memory)
check "xl creates a domU" xl create /tmp/board.cfg
check "the domU's kernel comes up" is_up
check "the domU reads the disk that dom0 wrote" reads_the_disk
check "the domU writes the disk" writes_the_disk
check "the domU has its address" has_an_address
check "the domU answers over the network" answers_ping
check "xl ends the domU" xl destroy board
check "all memory is back" memory_comes_back "$before"
check "dom0 reads what the domU wrote" has_zeroes
finish

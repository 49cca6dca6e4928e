#!/bin/sh
# A domU's life as a story, each step explained and shown (`make demo`).
. /tests/lib.sh
. /tests/domu.sh

log=/var/log/xen/console/guest-demo.log

tell() { printf '\n== %s\n' "$*"; }

# shown COMMAND...: as if typed here. What fails is a failure of the demo.
shown() {
    printf '\n# %s\n' "$*"
    "$@" || {
        echo "FAIL $*"
        failures=$((failures + 1))
    }
}

# typed PATTERN COMMAND...: on the domU's console, which answers with a line that matches.
typed() {
    pattern=$1
    shift
    printf '\n(in the domU) # %s\n' "$*"
    type_on demo "$@"
    check "its console answers" says demo "$pattern"
    grep -E "$pattern" "$log"
}

same_on_disk() {
    in_domu=$(sed -n 's/^sum of file: \([0-9a-f]*\).*/\1/p' "$log" | tail -n 1)
    in_dom0=$(sha256sum <"$1")
    [ -n "$in_domu" ] && [ "$in_domu" = "${in_dom0%% *}" ]
}
is_gone() { ! xl domid demo; }

before=$(free_memory)
tell "This is dom0: Debian's Linux on the hypervisor, the only domain so far."
shown xl list
shown xl info free_memory

tell "xl create builds a domU of a kernel, an initial RAM disk, memory, 2 vCPUs, disks and a network interface."
shown cat /guests/demo.cfg
shown xl create /guests/demo.cfg

tell "It boots. Its console is a ring in shared memory, read by xenconsoled in dom0, which writes it to a log:"
check "it has started" says demo '^domU is up'
tail -n 4 "$log"

tell "What is typed on its console arrives."
typed '^Linux .*armv7l' uname -a

tell "It writes 4 MiB of random bytes to its disk, a block device of dom0, and sums them up."
typed '^sum of file: [0-9a-f]{64}' fill /mnt/xvda/file 4

tell "Its network interface is in a bridge, which dom0 has an address on."
shown ping -c 10 -W 5 192.168.7.2

tell "The hypervisor's view: the domains, and their vCPUs on the machine's CPUs."
shown xl list
shown xl vcpu-list

tell "xl shutdown asks its kernel to power off."
shown xl shutdown demo
check "it is gone" eventually is_gone
shown xl list

tell "What it wrote is on the disk. dom0 reads it now:"
shown mount -o ro /dev/data /mnt
shown sha256sum /mnt/file
check "that is the sum that the domU saw" same_on_disk /mnt/file
umount /mnt

tell "A domU can also be ended at once, whatever it does."
shown xl create /guests/demo.cfg
check "it has started" says demo '^domU is up' 2
shown xl destroy demo
shown xl list

tell "All its memory is free again, to the last page."
check "as much is free as before" memory_comes_back "$before"
shown xl info free_memory
echo "data disk: sha256 $(sha256sum </dev/data)"
finish

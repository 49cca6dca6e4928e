#!/bin/sh
# A domain that the hypervisor has started beside dom0: it is there without a name, Debian's init-dom0less introduces it, and
# xl does with it what it does with any other. The runner's test of this name puts the domain into the machine's tree.
# shellcheck source=tests/dom0/lib.sh
. /tests/lib.sh
# shellcheck source=tests/dom0/domu.sh
. /tests/domu.sh

# Port and ring of xenstore are where the hypervisor and init-dom0less have said.
is_introduced() {
    [ "$(xenstore-read /local/domain/1/store/port)" = 1 ] &&
        [ "$(xenstore-read /local/domain/1/store/ring-ref)" = 233473 ]
}

network_is_connected() { [ "$(xenstore-read /local/domain/1/device/vif/0/state)" = 4 ]; }

# A dead domain takes a moment; xl's own verdict counts what it did not find in xenstore.
destroy() {
    xl destroy 1
    eventually only_dom0_is_left
}

# The pages of a domain of 128 MiB, its tables and what the hypervisor keeps for it.
memory_grew() { [ "$(($(free_memory) - before))" -ge $((128 * 1024)) ]; }

check_output "the domain is there, without a name" '^\(null\) +1 +12[78] +1 ' xl list
check_output "init-dom0less introduces it" 'Init dom0less domain: 1' /usr/lib/xen-4.17/bin/init-dom0less
check_output "xl list names it" '^dom0less-1 +1 ' xl list
check "xenstore is where the domain was told" is_introduced
check "xl pauses and unpauses it" sh -c 'xl pause 1 && xl unpause 1'
check_output "xl vcpu-list shows its vCPU" '^dom0less-1 +1 +0 ' xl vcpu-list
check "xl gives it a network" xl network-attach 1 mac=00:16:3e:00:00:aa,bridge=xenbr0
check "its kernel has connected that" eventually network_is_connected
before=$(free_memory)
check "xl destroy ends it" destroy
check "its memory is free again" eventually memory_grew
check "every reference is accounted for" every_reference_is_found
finish

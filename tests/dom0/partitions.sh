#!/bin/sh
# A domain that the hypervisor has started beside dom0: it is there without a name, Debian's init-dom0less introduces it, and
# xl does with it what it does with any other. Then a domU of xl's that owns the machine's real-time clock. The runner's test of
# this name puts the domain into the machine's tree, and a mark at the clock.
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

# Its driver has asked what time it is; the alarm is an interrupt of the machine's.
rings() {
    answers rtc '^alarms: [1-9]' 'echo +1 >/sys/class/rtc/rtc0/wakealarm;' \
        "until n=\$(sed -n 's/^ *[0-9]*: *\([1-9][0-9]*\) .*rtc-pl031\$/\1/p' /proc/interrupts) && [ -n \"\$n\" ]; do sleep 1; done;" \
        "echo alarms: \$n"
}
# With an alarm on its way.
ends_rtc() {
    type_on rtc 'echo +1 >/sys/class/rtc/rtc0/wakealarm'
    xl destroy rtc && eventually only_dom0_is_left
}
# refused LINE COMMAND...: xl fails, and the hypervisor says why.
refused() {
    line=$1
    shift
    if "$@"; then return 1; fi
    eventually only_dom0_is_left && xl dmesg | grep "$line"
}

check "a page of a device that is not marked is refused and named" \
    refused '/pl061@9030000 is not marked xen,passthrough' xl create /guests/rtc.cfg 'iomem=["0x9030,1"]'
check "the console is refused and named" refused '/pl011@9000000 is not marked' xl create /guests/rtc.cfg 'irqs=[33]'
before=$(free_memory)
for round in 1 2 3; do
    check "round $round: a domU with the machine's clock starts" xl create /guests/rtc.cfg
    check "its kernel comes up" says rtc '^domU is up: 1 CPU' "$round"
    check "the clock's alarm rings in it" rings
    [ "$round" != 1 ] || check "no other domU gets the clock" eval \
        '! xl create /guests/rtc.cfg "name=\"second\"" && xl dmesg | grep "/pl031@9010000 is d"'
    check "it ends while the alarm may ring" ends_rtc
done

# A domU with an emulated UART, which xenconsoled serves beside the console that every domU has.
uart_log=/var/log/xen/console/guest-uart-vuart0.log
shows_on_uart() { eventually grep "$1" "$uart_log"; }
types_on_uart() { echo "$1" >"$(xenstore-read "/local/domain/$(xl domid uart)/vuart/0/tty")"; }
ends_uart() { xl destroy uart && eventually only_dom0_is_left; }

check "a domU with an emulated UART starts" xl create /guests/uart.cfg
check "its kernel comes up on it" shows_on_uart '^domU is up: 1 CPU'
# shellcheck disable=SC2016 # the domU's shell is to expand it
check "what is typed there arrives" types_on_uart 'echo answer $((6 * 7))'
check "it is answered" shows_on_uart '^answer 42'
check "xl destroy ends it" ends_uart

# A domU with performance monitors, whose overflows interrupt it: perf samples by them.
ends_pmu() { xl destroy pmu && eventually only_dom0_is_left; }
# Lines of perf's table of counts are "COUNT,,EVENT,...".
loop="sh -c 'i=0; while [ \$i -lt 30000 ]; do i=\$((i + 1)); done'"

check "a domU with performance monitors starts" xl create /guests/pmu.cfg
check "its kernel comes up" says pmu '^domU is up: 2 CPU'
check "it has a driver for them" answers pmu 'armv7_cortex_a15 PMU driver' 'dmesg | grep "PMU driver"'
check "perf stat counts cycles" answers pmu '^[0-9]{7,},,cycles' "perf stat -x, -e cycles -- $loop"
check "perf record takes samples" answers pmu '[(][0-9]{2,} samples[)]' "perf record -e cycles -c 1000000 -o /tmp/perf -- $loop"
check "perf report tells where" answers pmu '^ +[0-9.]+% ' "perf report -i /tmp/perf --stdio 2>/dev/null | head -n 20"
check "the interrupts are the monitors'" answers pmu '^ *[0-9]+:( +[0-9]+)* +[1-9][0-9]*( .*)? arm-pmu' 'grep arm-pmu /proc/interrupts'
check "xl destroy ends it as well" ends_pmu
check "all its memory is free again" memory_comes_back "$before"
finish

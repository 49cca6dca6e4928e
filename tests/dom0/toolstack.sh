#!/bin/sh
# What Debian's toolstack does besides running Linux: its own tests, xl's other verbs, and domUs of a few instructions,
# which end in all the ways there are.
# shellcheck disable=SC2154 # zimage.sh has the programs
. /tests/lib.sh
. /tests/domu.sh
. /tests/zimage.sh

is_krypton() { [ "$(xl info cc_compile_by)" = krypton ]; }

# shows NAME LETTER: the state that `xl list` shows, at last.
shows() { xl list "$1" | awk 'NR == 2 { print $5 }' | grep "$2"; }
is_gone() { ! xl domid "$1"; }
domain_id() { xl domid "$1"; }

# dump_is_usable NAME MEBIBYTES: an ELF file with all its memory.
dump_is_usable() {
    xl dump-core "$1" /tmp/core || return
    [ "$(head -c 4 /tmp/core | tail -c 3)" = ELF ] && [ "$(wc -c </tmp/core)" -ge $(($2 << 20)) ]
    usable=$?
    rm -f /tmp/core
    return "$usable"
}

# crashes NAME INSTRUCTIONS WHAT: in its first instructions, which leaves it there to be looked at.
crashes() {
    xl dmesg -c >/dev/null
    check "a domU starts that $3" start_tiny "$1" "$2" 'on_crash="preserve"'
    id=$(domain_id "$1")
    check "xl list shows that it crashed" eventually shows "$1" 'c'
    check_output "the hypervisor's log says where" "d$id crashed: its handler of aborts cannot be run" xl dmesg
    check_output "the log has its registers" "d${id}v0: pc 0000000c cpsr [0-9a-f]{8}" xl dmesg
    check "xl destroy cleans up" xl destroy "$1"
}

# stays_as NAME INSTRUCTIONS EVENT LETTER; the others: NAME INSTRUCTIONS EVENT.
stays_as() { start_tiny "$1" "$2" "$3=\"preserve\"" && eventually shows "$1" "$4" && xl destroy "$1"; }
goes_away() { start_tiny "$1" "$2" "$3=\"destroy\"" && eventually is_gone "$1"; }
comes_again() {
    start_tiny "$1" "$2" "$3=\"restart\"" && first=$(domain_id "$1") || return
    eventually has_another_id "$1" "$first" && is_ended "$1"
}
has_another_id() { id=$(domain_id "$1") && [ "$id" != "$2" ]; }
# It may be between two lives.
is_ended() { eventually xl destroy "$1" && eventually is_gone "$1"; }

watchdog_is_kicked() { xenwatchdogd 30 5 && eventually pidof xenwatchdogd; }
watchdog_is_disarmed() { kill -USR1 "$(pidof xenwatchdogd)" && eventually has_ended xenwatchdogd; }
has_ended() { ! pidof "$1"; }
devd_runs() {
    xl devd || return
    kill "$(cat /var/run/xldevd.pid)"
}
log_is_emptied() {
    xl debug-keys h && xl dmesg -c | grep "key 'h'" && ! xl dmesg | grep "key 'h'"
}

before=$(free_memory)
check "Debian's test-resource passes" test-resource
check "Debian's test-paging-mempool passes" test-paging-mempool
check "Debian's test-xenstore passes" test-xenstore
check "xl devd starts" devd_runs
check "xenwatchdogd starts and watches dom0" watchdog_is_kicked
check_output "xl cpupool-list shows the pool" "^Pool-0 +$(nproc) +credit2 +y +1$" xl cpupool-list
check_output "xl cpupool-list -c shows its CPUs" "^Pool-0 +0" xl cpupool-list -c
check_output "xl claims shows dom0" '^Domain-0 +0 +[0-9]+ +[0-9]+ +r----- +[0-9.]+ +0$' xl claims
check_output "xl sched-credit2 shows dom0" '^Domain-0 +0 +256 +0$' xl sched-credit2
check_output "xl uptime shows dom0" '^Domain-0 +0 +[0-9]+:[0-9]{2}:[0-9]{2}$' xl uptime
check "xl dmesg -c empties the log" log_is_emptied
check_output "xl info -n shows the topology" '^ +0: +0 +0 +0$' xl info -n

check "a domU of four instructions starts" start_tiny tiny "$waits"
check_output "it has a weight" "^tiny +$(domain_id tiny) +256 +0$" xl sched-credit2
check "xl sched-credit2 changes weight and cap" xl sched-credit2 -d tiny -w 512 -c 50
check_output "they are what was asked for" "^tiny +$(domain_id tiny) +512 +50$" xl sched-credit2
check "xl dump-core writes its memory" dump_is_usable tiny 32
check "it is destroyed" xl destroy tiny

check "on_poweroff=preserve leaves it as it ended" stays_as off "$turns_off" on_poweroff s
check "on_poweroff=destroy takes it away" goes_away off "$turns_off" on_poweroff
check "on_reboot=destroy takes it away" goes_away reset "$restarts" on_reboot
check "on_reboot=restart starts it again" comes_again reset "$restarts" on_reboot
if is_krypton; then
    # Xen gives such a guest exceptions for ever.
    crashes abort "$reads_nothing" 'reads where nothing is'
    crashes nowhere "$jumps_nowhere" 'jumps to where nothing is'
    crashes undefined "$is_undefined" 'runs an undefined instruction'
    check "on_crash=destroy takes it away" goes_away abort "$reads_nothing" on_crash
fi
check "all their memory is free again" memory_comes_back "$before"
check "the watchdog is disarmed" watchdog_is_disarmed
finish

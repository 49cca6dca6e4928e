#!/bin/sh
# Runs Debian's toolstack without Linux as a domU: its own tests, xl's other verbs, and domUs of a few instructions,
# which end in all the ways there are.
# shellcheck disable=SC2154 # zimage.sh has the programs
. /tests/lib.sh
. /tests/domu.sh
. /tests/zimage.sh

# shows NAME LETTER: the state that `xl list` shows, at last.
shows() { xl list "$1" | awk 'NR == 2 { print $5 }' | grep "$2"; }
is_gone() { ! xl domid "$1"; }
domain_id() { xl domid "$1"; }

# is_core_of FILE MEBIBYTES: an ELF file with all memory.
is_core_of() { [ "$(head -c 4 "$1" | tail -c 3)" = ELF ] && [ "$(wc -c <"$1")" -ge $(($2 << 20)) ]; }
# dump_is_usable NAME MEBIBYTES
dump_is_usable() {
    xl dump-core "$1" /tmp/core || return
    is_core_of /tmp/core "$2"
    usable=$?
    rm -f /tmp/core
    return "$usable"
}

# While xenconsoled stands still it keeps its mapping of the domU's console ring.
console_is_mapped() { xenstore-exists "/local/domain/$(domain_id tiny)/console/tty"; }
stops_xenconsoled() { eventually console_is_mapped && kill -STOP "$(pidof xenconsoled)"; }
is_zombie() { xl list | grep -E "^\(null\) +$1 +0 +1 +[r-][b-]p--d +"; }

# crashes NAME INSTRUCTIONS WHAT: in its first instructions, which leaves it there to be looked at.
crashes() {
    xl dmesg -c >/dev/null
    check "a domU starts that $3" start_tiny "$1" "$2" 'on_crash="preserve"'
    id=$(domain_id "$1")
    check "xl list shows that it crashed" eventually shows "$1" 'c'
    check_output "the hypervisor's log says where" "d$id crashed: its handler of aborts cannot be run" xl dmesg
    check_output "the log has its registers" "d${id}v0 pc 0000000c cpsr [0-9a-f]{8}" xl dmesg
    check "xl destroy cleans up" xl destroy "$1"
}

# stays_as NAME INSTRUCTIONS EVENT LETTER; the others: NAME INSTRUCTIONS EVENT.
stays_as() { start_tiny "$1" "$2" "$3=\"preserve\"" && eventually shows "$1" "$4" && xl destroy "$1"; }
has_state() { [ "$(xl list "$1" | awk 'NR == 2 { print $5 }')" = "$2" ]; }

# dumps_core: and then the domU goes.
dumps_core() {
    rm -rf /var/lib/xen/dump && mkdir -p /var/lib/xen/dump &&
        start_tiny panic "$crashes_itself" 'on_crash="coredump-destroy"' &&
        eventually is_core_of /var/lib/xen/dump/panic 32 && eventually is_gone panic
}
# A crashed domU is renamed with the time behind its name. Of several in one minute, the last keeps that name.
is_kept_by_name() {
    start_tiny panic "$crashes_itself" 'on_crash="rename-restart"' &&
        eventually is_listed 'panic-[0-9]{8}T[0-9]{4}Z' && eventually is_listed panic
}
is_listed() { xl list | grep -E "^$1 "; }
# First who would start one again: it may be between two lives.
all_are_ended() {
    # shellcheck disable=SC2046 # there may be none, or more than one
    kill $(pidof xl)
    xl list | awk 'NR > 2 { print $2 }' | while read -r id; do xl destroy "$id"; done
    only_dom0_is_left
}
goes_away() { start_tiny "$1" "$2" "$3=\"destroy\"" && eventually is_gone "$1"; }
# It ends at once, again and again, and between two lives it has no id: xl's log of it tells of its ends.
comes_again() { start_tiny "$1" "$2" "$3=\"restart\"" && eventually has_ended_twice "$1" && eventually all_are_ended; }
has_ended_twice() { [ "$(grep -c 'Domain [0-9]* has shut down' "/var/log/xen/xl-$1.log")" -ge 2 ]; }

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

# The log goes from the hypervisor's ring to xenconsoled's file, which VIRQ con_ring tells of more.
log_is_kept() { xl debug-keys h && eventually grep "key 'h'" /var/log/xen/console/hypervisor.log; }

# rows_match PATTERN COMMAND...: every line but the first does.
rows_match() {
    pattern=$1
    shift
    "$@" >/tmp/rows && [ "$(wc -l </tmp/rows)" -gt 1 ] && ! tail -n +2 /tmp/rows | grep -Ev "$pattern"
}

# tells LINE COMMAND...: among what the command says, whether or not it fails.
tells() {
    line=$1
    shift
    "$@" </dev/null 2>&1 | sed 's/Domain [0-9]*:/Domain N:/; s/ *$//' >/tmp/told
    grep -Fx -- "$line" /tmp/told || {
        cat /tmp/told
        return 1
    }
}

# Compares verbs on the domU `tiny` with Debian's Xen, word for word: command, then a line of its output.
answers_as_xen_does() {
    while IFS='|' read -r command line; do
        # shellcheck disable=SC2086 # a list of words
        check "$command" tells "$line" $command
    done <<'END'
xenhypfs tree|/
xenhypfs ls /|could not read dir: Bad address
xenhypfs cat /buildinfo/version/major|could not read: Bad address
xenhypfs write /params/x 1|could not write: No such file or directory
xl set-parameters foo=1|cannot set parameters: foo=1
xl sched-credit -d tiny -w 100|libxl: error: libxl_sched.c:232:sched_credit_domain_set: Domain N:Getting domain sched credit: Invalid argument
xl sched-credit2 -s -p Pool-0|Cpupool Pool-0: ratelimit=1000us
xl sched-credit2 -s -p Pool-0 -r 10|libxl: error: libxl_sched.c:270:sched_ratelimit_check: Ratelimit out of range, valid range is from 100 to 500000
xl trigger tiny nmi|libxl: error: libxl_domain.c:2207:libxl_send_trigger: Domain N:Send trigger 'nmi' failed: Function not implemented
xl button-press tiny power|libxl: error: libxl_domain.c:2207:libxl_send_trigger: Domain N:Send trigger 'power' failed: Function not implemented
xl getenforce|Flask XSM Disabled
xl loadpolicy /dev/null|Flask XSM disabled
xl channel-list tiny|Idx BE state evt-ch ring-ref connection
xl vtpm-list tiny|Idx BE Uuid                                 handle state evt-ch ring-ref BE-path
xl block-list tiny|Vdev  BE  handle state evt-ch ring-ref BE-path
xl vcpu-pin tiny 0 7|libxl: error: libxl_sched.c:62:libxl__set_vcpuaffinity: Domain N:Setting vcpu affinity: Invalid argument
xl vcpu-pin tiny 5 0|libxl: error: libxl_sched.c:62:libxl__set_vcpuaffinity: Domain N:Setting vcpu affinity: Invalid argument
xl vcpu-set -i tiny 2|libxl: error: libxl_domain.c:1869:libxl_set_vcpuonline: Domain N:Requested 2 VCPUs, however maxcpus is 1!: Function not implemented
xl mem-set tiny 24|xl: libxl.c:337: libxl_defbool_val: Assertion `!libxl_defbool_is_default(db)' failed.
xl mem-max tiny 64|xl: libxl.c:337: libxl_defbool_val: Assertion `!libxl_defbool_is_default(db)' failed.
xl create /tmp/tiny.cfg|libxl: error: libxl_domain.c:81:libxl__domain_rename: Domain N:Domain with name "tiny" already exists.
xl pause nobody|nobody is an invalid domain identifier (rc=-6)
xl destroy 0|Not destroying domain 0; use -f to force.
END
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
check "xenconsoled keeps the hypervisor's log" log_is_kept
check_output "xl info -n shows the topology" '^ +0: +0 +0 +0$' xl info -n

check "xl create -p makes a domU of four instructions" start_tiny tiny "$waits" -p
check "it is paused, and has not run" has_state tiny --p---
check "xl unpause lets it run" xl unpause tiny
check "it does, and waits" eventually has_state tiny -b----
check "each row of xl list has the form of Xen's" \
    rows_match '^[^ ]+ +[0-9]+ +[0-9]+ +[0-9]+ +[r-][b-][p-][s-][c-][d-] +[0-9]+[.][0-9]$' xl list
check "each row of xl vcpu-list has the form of Xen's" \
    rows_match '^[^ ]+ +[0-9]+ +[0-9]+ +([0-9]+|-) +[r-][b-][p-] +[0-9]+[.][0-9] +all / all$' xl vcpu-list
answers_as_xen_does
check_output "it has a weight" "^tiny +$(domain_id tiny) +256 +0$" xl sched-credit2
check "xl sched-credit2 changes weight and cap" xl sched-credit2 -d tiny -w 512 -c 50
check_output "they are what was asked for" "^tiny +$(domain_id tiny) +512 +50$" xl sched-credit2
check "xl dump-core writes its memory" dump_is_usable tiny 32
check "xl mem-max below what it has is refused as Xen does" \
    tells 'libxl: error: libxl_mem.c:59:libxl_domain_setmaxmem: Domain N:memory_static_max must be greater than or or equal to memory_dynamic_max: Success' xl mem-max tiny 16
dying=$(domain_id tiny)
check "xenconsoled keeps a page of it" stops_xenconsoled
check "it is destroyed" xl destroy tiny
check "it stays, dying, as long as somebody has a page of it" is_zombie "$dying"
kill -CONT "$(pidof xenconsoled)"
check "then it goes, with all its memory" memory_comes_back "$before"

check "a domU with nearly all memory there is starts" start_tiny large "$waits" memory=$(($(xl info free_memory) - 16))
check "hardly any is left" [ "$(xl info free_memory)" -le 16 ]
check "it is destroyed too" xl destroy large

check "on_poweroff=preserve leaves it as it ended" stays_as off "$turns_off" on_poweroff s
check "on_poweroff=destroy takes it away" goes_away off "$turns_off" on_poweroff
check "on_reboot=destroy takes it away" goes_away reset "$restarts" on_reboot
check "on_reboot=restart starts it again" comes_again reset "$restarts" on_reboot
check "on_poweroff=restart starts it again" comes_again off "$turns_off" on_poweroff
check "on_crash=preserve leaves it as it crashed" stays_as panic "$crashes_itself" on_crash c
check "on_crash=destroy takes it away" goes_away panic "$crashes_itself" on_crash
check "on_crash=restart starts it again" comes_again panic "$crashes_itself" on_crash
check "on_crash=coredump-destroy dumps its memory and takes it away" dumps_core
check "on_crash=rename-restart starts another and keeps it by another name" is_kept_by_name
check "all of them go" eventually all_are_ended
rm -rf /var/lib/xen/dump
if is_krypton; then
    # Xen gives such a guest exceptions for ever.
    crashes abort "$reads_nothing" 'reads where nothing is'
    crashes nowhere "$jumps_nowhere" 'jumps to where nothing is'
    crashes undefined "$is_undefined" 'runs an undefined instruction'
fi
check "all their memory is free again" memory_comes_back "$before"
check "the watchdog is disarmed" watchdog_is_disarmed
finish

# shellcheck shell=sh
# For the tests that run domUs: what a domU said on its console, typing on it, and what memory is left.

# Everything here waits for its end, however slow the emulation; a hang is what this many seconds are for.
patience=${KRYPTON_PATIENCE:-300}

# eventually COMMAND...: it succeeds at last.
eventually() {
    tries=$((patience * 4))
    until "$@"; do
        [ "$tries" -gt 0 ] || return 1
        usleep 250000
        tries=$((tries - 1))
    done
}

# said NAME PATTERN [TIMES]: the domU's console, since it was first created, has that many lines that match.
said() { [ "$(grep -cE "$2" "/var/log/xen/console/guest-$1.log" 2>/dev/null)" -ge "${3:-1}" ]; }

# says NAME PATTERN [TIMES]: it will have. If not, the hypervisor tells what waits for what: an event that never came shows
# in its tables (e), beside domains (q) and run queues (r).
says() {
    eventually said "$@" && return
    xl debug-keys eqr
    tail -n 5 "/var/log/xen/console/guest-$1.log"
    return 1
}

# type_on NAME WORDS...: as if typed on its console.
type_on() {
    name=$1
    shift
    echo "$*" >"$(xenstore-read "/local/domain/$(xl domid "$name")/console/tty")"
}

# answers NAME PATTERN WORDS...: typed on its console, WORDS bring a line that matches, behind what was there before.
answers() {
    name=$1
    pattern=$2
    shift 2
    before=$(grep -cE "$pattern" "/var/log/xen/console/guest-$name.log")
    type_on "$name" "$@"
    says "$name" "$pattern" $((before + 1))
}

# with_tools COMMAND...: a program of the tools' disk, with the libraries there.
with_tools() {
    program=$1
    shift
    LD_LIBRARY_PATH=/tools/lib "/tools/bin/$program" "$@"
}

# is_paused NAME: by the column of `xl list`, beside what its vCPUs did before.
is_paused() { xl list "$1" | awk 'END { print $5 }' | grep p; }

only_dom0_is_left() { [ "$(xl list | wc -l)" = 2 ]; }

# told_by_keys KEYS: the hypervisor's log up to now, what these debug keys tell last, and then forgets it. Each `xl` takes
# a while where it is emulated: as few as can be.
told_by_keys() {
    xl debug-keys "$1"
    xl dmesg -c
}

# Free memory in KiB, and what is kept for dom0, where the hypervisor tells how much that is: the tables of its own map, as
# mapping a domU's memory breaks up blocks of that map, each of which needs a table, for good; and pages that hold its
# grants and their handles, of which it has as many as it once used. `xl info` knows MiB only; debug keys tell all.
# Prints nothing when the answer is not in the log, which holds 16 KiB: no number is equal to that.
free_memory() {
    told_by_keys mq | awk '
        /Dom heap: [0-9]+kB free/ { sub(/.*Dom heap: /, ""); heap = $0 + 0; tables = shared = 0 }
        /information for domain / { in_dom0 = / domain 0:/ }
        in_dom0 && / shared=/ { line = $0; sub(/.* shared=/, "", line); shared = line + 0 }
        in_dom0 && / pool=/ { sub(/.* pool=/, ""); tables = $0 + 0; in_dom0 = 0 }
        END { if (heap != "") print heap + 4 * (tables + shared) }'
}

# is_krypton: Debian's Xen is asked less here and there.
is_krypton() { [ "$(cat /sys/hypervisor/compilation/compiled_by)" = krypton ]; }

# free_memory_is KIB: Xen does not tell of dom0's tables: one for each of its 256 blocks of 2 MiB may be missing there.
free_memory_is() {
    now=$(free_memory)
    if [ -z "$1" ] || [ -z "$now" ]; then return 1; fi
    missing=$(($1 - now))
    [ "$missing" = 0 ] || { ! is_krypton && [ "$missing" -gt 0 ] && [ "$missing" -le 1024 ]; }
}

# every_reference_is_found: the hypervisor's own audit of its frames. Xen has none.
every_reference_is_found() {
    is_krypton || return 0
    audit=$(told_by_keys y | grep 'audit: ' | tail -n 1)
    echo "$audit"
    echo "$audit" | grep -q 'audit: every reference'
}

# memory_comes_back KIB: nothing was lost since that much was free, no domain is left, not even a dying one.
memory_comes_back() {
    eventually only_dom0_is_left && eventually free_memory_is "$1" && every_reference_is_found &&
        echo "memory: $now kB, before: $1 kB" && return
    xl list
    echo "memory: $now kB, before: $1 kB"
    return 1
}

# shellcheck shell=sh
# For the tests that run in dom0: each check prints one line, and `finish` tells whether all of them held.

failures=0

# check "what must be true" COMMAND...
check() {
    what=$1
    shift
    if output=$("$@" 2>&1); then
        echo "ok $what"
    else
        echo "FAIL $what"
        printf '%s\n' "$output" | tail -n 5 | sed 's/^/    /'
        failures=$((failures + 1))
    fi
}

# check_output "what must be true" PATTERN COMMAND...: the command's output has a line that matches.
check_output() {
    what=$1
    pattern=$2
    shift 2
    if output=$("$@" 2>&1) && printf '%s\n' "$output" | grep -Eq "$pattern"; then
        echo "ok $what"
    else
        echo "FAIL $what: no line matches '$pattern' in the output of: $*"
        printf '%s\n' "$output" | tail -n 5 | sed 's/^/    /'
        failures=$((failures + 1))
    fi
}

# Trouble that a kernel reports but survives: dom0's, and those of domUs, on their consoles.
kernel_is_calm() {
    { dmesg && cat /var/log/xen/console/guest-*.log 2>/dev/null; } >/tmp/kernels
    ! grep -E 'BUG:|Oops|WARNING:|rcu:.*stall|blocked for more than|soft lockup|I/O error|Internal error' /tmp/kernels
}

finish() {
    check "no kernel reported trouble" kernel_is_calm
    [ "$failures" = 0 ]
    exit
}

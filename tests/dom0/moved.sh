# shellcheck shell=sh
# For the tests that save the domU `demo` and move it: how, and what must hold afterwards.

saved=/tmp/demo.saved

is_gone() { ! xl domid demo; }
is_saved() { xl save demo "$saved" && eventually is_gone; }
is_one() { [ "$(xl list | grep -c '^demo')" = 1 ]; }
# xenconsoled goes on with the log of the name that the domU came by: what was said before goes there too.
moves() {
    xl migrate -s '' demo 'kmove receive' >/tmp/moved 2>&1
    moved=$?
    cat /tmp/moved
    [ "$moved" = 0 ] && eventually is_one && xl domid demo || return
    cd /var/log/xen/console && cat guest-demo.log >>guest-demo--incoming.log && ln -sf guest-demo--incoming.log guest-demo.log
}
# It sent pages again, and no more than two faults told it of each.
was_live() {
    sed -n 's/.* \([0-9]*\) rounds, \([0-9]*\) pages sent again.* \([0-9]*\) faults for \([0-9]*\) pages written.*/\1 \2 \3 \4/p' /tmp/moved |
        awk '{ print; found = $1 >= 2 && $2 > 0 && $4 > 0 && $3 <= 2 * $4 } END { exit !found }'
}

# Looks for complaints in its kernel's log, where systemd mounts a file system for debugging. The words are not written out, as the
# typed command is on its console too.
has_no_complaint() {
    answers demo '^looked' "dmesg | grep -Ei '[s]tall|[l]ockup|[^e][b]ug|[W]ARN|[h]ung|[b]locked for more|[u]nstable' | \
        sed 's/^/complaint: /'; echo look''ed" &&
        ! grep '^complaint: ' /var/log/xen/console/guest-demo.log
}
# How far its time of day is behind dom0's.
lag() {
    answers demo '^now [0-9]+' 'echo now $(date +%s)' || return
    there=$(sed -n 's/^now \([0-9]*\).*/\1/p' /var/log/xen/console/guest-demo.log | tail -n 1)
    lag=$(($(date +%s) - there))
    echo "domU $there, $lag seconds behind dom0; at first $first_lag"
}
# As far as at its start, but for the time that the answer takes.
time_is_right() { lag && [ $((lag - first_lag)) -le 3 ] && [ $((lag - first_lag)) -ge -3 ]; }

#!/bin/sh
# A whole Debian with systemd (tests/setup/image.sh) as a domU: somebody is logged in at its console, and finds everything
# as it was when the domU was saved and restored, and when it moved through a pipe while it ran.
. /tests/lib.sh
. /tests/domu.sh
. /tests/moved.sh

# No other disk is of 1 GiB.
disk=/dev/$(awk '$3 == 1048576 { print $4; exit }' /proc/partitions)
log=/var/log/xen/console/guest-demo.log

# prompted WORDS: the console's last words, but for what the kernel says meanwhile.
prompted() { tail -n 4 "$log" | grep "$1"; }
# logs_in NUMBER: root does, for that time. bash's own line editing marks its lines for terminals.
logs_in() {
    eventually prompted 'guest login:' && type_on demo root && eventually prompted 'Password:' && type_on demo krypton &&
        eventually prompted 'root@guest' && type_on demo exec sh &&
        answers demo "^login $1 of root" "kept=$1; echo login \$kept of \$(whoami)"
}
logs_out() { type_on demo exit; }
session_goes_on() { answers demo "^login $1 of root" 'echo login $kept of $(whoami)'; }
is_running() {
    answers demo '^systemd is [a-z]+' 'echo systemd is $(systemctl is-system-running --wait)'
    grep '^systemd is' "$log" | tail -n 1 | grep 'is running' && return
    type_on demo 'systemctl --failed --no-pager'
    sleep 20
    tail -n 20 "$log"
    return 1
}
answers_ping() { ping -c 3 -W 10 192.168.7.2; }
# is_as_it_was NUMBER: for who has logged in for that time.
is_as_it_was() {
    check "the session at its console goes on" session_goes_on "$1"
    check "systemd says that it is running" is_running
    check "it answers ping" answers_ping
    check "its clock is right" time_is_right
    check "its kernel has no complaint" has_no_complaint
}

free=$(free_memory)
check "a Debian starts" xl create /guests/demo.cfg memory=192 \
    "disk=[\"phy:$disk,xvda,w\"]" 'extra="console=hvc0 root=/dev/xvda"'
check "somebody logs in" logs_in 1
check "systemd says that it is running" is_running
check "it answers ping" answers_ping
first_lag=
lag
first_lag=$lag
check "it goes on behind a checkpoint" kmove checkpoint demo
is_as_it_was 1
check "it is saved" is_saved
check "all its memory is free again" memory_comes_back "$free"
check "it is restored" xl restore "$saved"
rm "$saved"
is_as_it_was 1
logs_out
check "somebody logs in again" logs_in 2
check "it moves while it runs" moves
check "pages were sent again, each by at most two faults" was_live
is_as_it_was 2
check_output "xl shutdown -w waits until systemd has powered it off" 'has been shut down, reason code 0' xl shutdown -w demo
check "it is gone" eventually is_gone
check "all its memory is free again" memory_comes_back "$free"
finish

#!/bin/sh
# Looks in a domU's console log for its last words, written before it ended or closed its event channels.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels

log_of() { echo "/var/log/xen/console/guest-$1.log"; }
has_console() { xenstore-exists "/local/domain/$(xl domid "$1")/console/tty"; }
daemon=$(pidof xenconsoled)

ends='reset spin crash psci off'

# makes NAME END LINES: a domU, paused, that prints so many lines and ends so (tests/guests/src/last_words.rs). It stays when it
# has ended: of one that is destroyed xenconsoled may not look at the ring again.
makes() {
    printf 'name = "%s"\nkernel = "/mnt/kernels/psci"\nmemory = 32\nextra = "lines=%s end=%s"\n' "$1" "$3" "$2" >"/tmp/$1.cfg"
    xl create -p "/tmp/$1.cfg" 'on_crash="preserve"' 'on_poweroff="preserve"'
}
# xenconsoled has opened their consoles.
have_consoles() {
    for end in $ends; do
        eventually has_console "$1-$end" || return
    done
    sleep 2
}
has_lines() { [ "$(grep -c "^line [0-9]* of $2\$" "$(log_of "$1")")" = "$2" ]; }
keeps() { eventually has_lines "$1" "$2" && xl destroy "$1"; }

for end in $ends; do
    check "a domU that will end by '$end' is made" makes "busy-$end" "$end" 300
    check "and one that ends while xenconsoled stands still" makes "late-$end" "$end" 20
done
check "their consoles are open" have_consoles busy
check "and those" have_consoles late

# More than the ring holds, and the daemon takes it meanwhile.
for end in $ends; do
    check "the domU that ends by '$end' runs" xl unpause "busy-$end"
done
for end in $ends; do
    check "all that a domU said before '$end' is in its log" keeps "busy-$end" 300
done

# The daemon stands still until the domUs have ended, or have closed all their ports and go on.
kill -STOP "$daemon"
for end in $ends; do
    xl unpause "late-$end"
done
sleep 6
kill -CONT "$daemon"
for end in $ends; do
    check "so it is if xenconsoled comes to it after '$end'" keeps "late-$end" 20
done

finish

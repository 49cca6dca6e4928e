#!/bin/sh
# Looks in a domU's console log for its last words, written before it ended or closed its event channels.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels

log_of() { echo "/var/log/xen/console/guest-$1.log"; }
has_console() { xenstore-exists "/local/domain/$(xl domid "$1")/console/tty"; }
daemon=$(pidof xenconsoled)

# makes NAME END LINES: a domU, paused, that prints so many lines and ends so (tests/guests/src/last_words.rs). xenconsoled has
# opened its console. It stays when it has ended: of one that is destroyed xenconsoled may not look at the ring again.
makes() {
    printf 'name = "%s"\nkernel = "/mnt/kernels/psci"\nmemory = 32\nextra = "lines=%s end=%s"\n' "$1" "$3" "$2" >"/tmp/$1.cfg"
    xl create -p "/tmp/$1.cfg" 'on_crash="preserve"' 'on_poweroff="preserve"' && eventually has_console "$1" && sleep 2
}
has_lines() { [ "$(grep -c "^line [0-9]* of $2\$" "$(log_of "$1")")" = "$2" ]; }

# keeps END: more than its ring holds, and the daemon takes it meanwhile.
keeps() {
    makes "busy-$1" "$1" 300 && xl unpause "busy-$1" && eventually has_lines "busy-$1" 300 && xl destroy "busy-$1"
}

# keeps_for_later END: the daemon stands still until the domU has ended, or has closed all its ports and goes on.
keeps_for_later() {
    makes "late-$1" "$1" 20 || return
    kill -STOP "$daemon"
    xl unpause "late-$1" && sleep 6
    kill -CONT "$daemon"
    eventually has_lines "late-$1" 20 && xl destroy "late-$1"
}

for end in reset spin crash psci off; do
    check "all that a domU said before '$end' is in its log" keeps "$end"
    check "so it is if xenconsoled comes to it after '$end'" keeps_for_later "$end"
done

finish

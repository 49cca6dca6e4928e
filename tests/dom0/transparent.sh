#!/bin/sh
# A guest that knows nothing of being saved is saved, with its ports and grants, and comes back; what cannot come back is refused
# by name, and goes on.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels
saved=/tmp/unaware.saved
log=/var/log/xen/console/guest-unaware.log
printf 'name = "unaware"\nkernel = "/mnt/kernels/unaware"\nmemory = 64\nvcpus = 2\nextra = "guest=unaware"\n' >/tmp/unaware.cfg

is_gone() { ! xl domid unaware; }
has_console() { xenstore-exists "/local/domain/$(xl domid unaware)/console/tty"; }
starts() { xl create /tmp/unaware.cfg && eventually has_console; }
holds() { answers "$1" '^state: ' state && ! grep '^FAIL' "/var/log/xen/console/guest-$1.log"; }
is_saved() { kmove save unaware "$saved" --transparent && eventually is_gone; }
# The longest time between two interrupts of its timers, whose virtual counter stood still while it was away.
gap_is_short() {
    answers unaware '^state: ' state
    gap=$(sed -n 's/.*longest gap \([0-9]*\) ms.*/\1/p' "$log" | tail -n 1)
    echo "longest gap: $gap ms, away for $1 s"
    [ "$gap" -lt $(($1 * 1000)) ]
}
# refuses NAME PATTERN: it is not saved, for this reason.
refuses() {
    ! kmove save "$1" "$saved" --transparent >/tmp/refused 2>&1 && cat /tmp/refused && grep -qE "$2" /tmp/refused &&
        [ ! -e "$saved" ]
}
# It can be told apart from the one that it was.
has_another_id() { [ "$(xl domid unaware)" -gt "$first" ]; }

before=$(free_memory)
check "a guest starts that knows nothing of being saved" starts
check "it comes up" says unaware '^guest: unaware'
check "it works" holds unaware
check "it is refused as it is by a save that asks it to suspend" eval '! kmove save unaware $saved'
check "it maps its own grant" answers unaware '^mapped: true' map
check "that is refused by its number" refuses unaware 'domain [0-9]+ has mapped its grant 10; unaware runs on'
check "it goes on" holds unaware
check "it unmaps it" answers unaware '^mapped: false' map
check "it sets a watchdog" answers unaware '^watchdog: true' watchdog
check "that is refused" refuses unaware 'it has set a watchdog of the hypervisor.s; unaware runs on'
check "it takes that back" answers unaware '^watchdog: false' watchdog
check "a node of its own" xenstore-write "/local/domain/$(xl domid unaware)/data/mark" here
first=$(xl domid unaware)
check "it is copied while it is paused" kmove checkpoint unaware "$saved" --transparent
check "it goes on" holds unaware
check "its copy runs beside it" kmove restore "$saved" --name twin
check "the copy works" holds twin
check "it goes on beside its copy" holds unaware
check "the copy is destroyed" xl destroy twin
check "it is saved" is_saved
check "all its memory is free again" memory_comes_back "$before"
check "the file is whole" kmove verify "$saved"
sleep 20
check "it is restored" kmove restore "$saved"
check "it has another number" has_another_id
check "it works where it was" holds unaware
check "its counter has not jumped" gap_is_short 15
check "its node is there" eval '[ "$(xenstore-read "/local/domain/$(xl domid unaware)/data/mark")" = here ]'
check "one of its CPUs is in an interrupt's handler" answers unaware '^held: true' hold
check "it is saved again" is_saved
check "it is restored again" kmove restore "$saved"
check "the handler ends, and what waited for that comes" answers unaware '^released: true' hold
check "an event that was sent before is not lost" answers unaware '^kept: true' kept
check "it takes another ABI of events" answers unaware '^fifo: true' fifo
check "that is refused" refuses unaware 'it uses FIFO event channels, as Linux does; unaware runs on'
check "it is destroyed" xl destroy unaware

check "a domU with a disk starts" xl create /guests/demo.cfg
check "it comes up" says demo '^domU is up: '
check "it is refused by its port and its disk" refuses demo \
    'its port [0-9]+ \(device/v[a-z]+/[0-9]+\) leads to port [0-9]+ of domain 0; demo runs on'
check "it goes on" answers demo '^sum of f' 'fill /mnt/xvda/f 2'
check "it is destroyed" xl destroy demo
check "all memory is free again, and accounted for" memory_comes_back "$before"
finish

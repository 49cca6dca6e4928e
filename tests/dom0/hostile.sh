#!/bin/sh
# Hostile domUs (tests/guests/src/hostile): what they attack holds, dom0 answers meanwhile, and nothing of them is left. Twice.
#
# "Answers" is not a matter of the wall's clock, which an emulator on a busy host stretches as it likes: it is what the domUs
# take of dom0's time. The hypervisor counts for each vCPU how long it was ready to run and did not (run state, which dom0's
# kernel shows as time stolen). An answer that took T in all and of whose T dom0's vCPUs waited S would have taken T - S in a
# quiet machine; it takes at most twice as long when S is at most T / 2. Both stretch alike.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels

answers=/tmp/answers

# Hundredths of a second since the boot, and those that dom0's vCPUs were ready and did not run.
clock() {
    read -r up _ </proc/uptime
    read -r _ _ _ _ _ _ _ _ stolen _ </proc/stat
    up=$(echo "$up" | tr -d .)
}

# answers_to COMMAND...: does it, and notes how long that took.
answers_to() {
    clock
    began=$up had=$stolen
    "$@" >/dev/null 2>&1 || echo "failed $*" >>$answers
    clock
    echo "$((up - began)) $((stolen - had)) $*" >>$answers
}

# Works at dom0's shell, again and again until /tmp/enough is there.
works_on() {
    while [ ! -e /tmp/enough ]; do
        answers_to xl list
        answers_to xenstore-ls /local/domain/0
        answers_to ls /
        answers_to sh -c 'echo $((1 + 1))'
    done
    touch /tmp/worked
}

# All of it was answered, in at most twice the time that a quiet machine takes.
dom0_answered() {
    touch /tmp/enough
    eventually [ -e /tmp/worked ] || return
    rm /tmp/enough /tmp/worked
    awk '/^failed/ { failed++; print; next } { all += $1; stolen += $2; if ($1 > longest) longest = $1 }
        END { printf "%d answers, %d failed; %d hundredths of a second, longest %d, stolen %d\n", NR, failed, all, longest, stolen
              exit !(NR >= 4 && failed == 0 && 2 * stolen <= all) }' $answers
}

log_of() { echo "/var/log/xen/console/guest-$1.log"; }
has_console() { xenstore-exists "/local/domain/$(xl domid "$1")/console/tty"; }
# Or was ended by a fault of its own.
has_finished() { said "$1" '^(done: |FAIL guest)'; }
has_said_its_end() { said "$1" '^end '; }

# prepare NAME MEBIBYTES EXTRA: a paused domU with four vCPUs.
prepare() {
    rm -f "$(log_of "$1")"
    printf 'name = "%s"\nkernel = "/mnt/kernels/hostile"\nmemory = %s\nvcpus = 4\nmax_event_channels = 131071\non_poweroff = "preserve"\non_crash = "preserve"\nextra = "%s"\n' "$1" "$2" "$3" >"/tmp/$1.cfg"
    xl create -p "/tmp/$1.cfg" && eventually has_console "$1" && sleep 2
}

# verdict NAME: what it said; its failures name the attacks.
verdict() {
    eventually has_finished "$1"
    grep -E '^FAIL' "$(log_of "$1")" | cut -d: -f1 | tr '\n' ' '
    grep -E '^FAIL' "$(log_of "$1")" | head -n 3
    tail -n 1 "$(log_of "$1")"
    said "$1" '^done: [1-9][0-9]* ok, 0 failed'
}

attacks() {
    xl unpause "$1" && verdict "$1"
}

# How many attacks at least it told of.
has_attacked() { [ "$(grep -c '^ok ' "$(log_of "$1")")" -ge "$2" ]; }

begin_to_work() {
    : >$answers
    works_on &
}

# dies HOW: a domU that ends that way, or is ended by dom0 in the middle of it, is gone.
dies() {
    prepare dying 64 "end=$1" && xl unpause dying && eventually has_said_its_end dying || return
    sleep 1
    xl destroy dying
}

# Weights are for each vCPU: with the one that all have, four vCPUs that never wait take four parts of five. Who lets strangers in
# gives dom0 more; this is as much as eight of them have, twice.
check "dom0 has more weight than all of them" xl sched-credit2 -d 0 -w 4096
seed=$(cut -d' ' -f1 /proc/uptime | tr -d .)
before=$(free_memory)
for round in 1 2; do
    check "a hostile domU is made (round $round, seed $seed)" prepare alone 128 "seed=$seed"
    begin_to_work
    check "its attacks come to nothing" attacks alone
    check "they were more than 120" has_attacked alone 200
    check "dom0 answered within twice its time" dom0_answered
    check "it is destroyed" xl destroy alone
    check "all its memory is free again, and accounted for" memory_comes_back "$before"

    check "two are made" eval 'prepare first 128 "pair=first seed=$seed" && prepare second 128 "pair=second seed=$seed"'
    begin_to_work
    check "what they do together comes to nothing" eval 'xl unpause first && xl unpause second && verdict first && verdict second'
    check "dom0 answered within twice its time" dom0_answered
    check "both are destroyed" eval 'xl destroy first && xl destroy second'
    check "all their memory is free again, and accounted for" memory_comes_back "$before"
    seed=$((seed + 1))
done
for how in mapped racing crash events vectors argument secondary; do
    check "a domU dies: $how" dies $how
done
check "all their memory is free again, and accounted for" memory_comes_back "$before"
finish

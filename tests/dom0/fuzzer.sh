#!/bin/sh
# A domU that does whatever comes to it by chance (tests/guests/src/bin/fuzzer), with one seed after the other: krypton.count=N of
# them (1 if not given), from one that the clock gives, or krypton.seed=N of dom0's command line. dom0 ends each, and has all
# memory back.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels

count=${KRYPTON_COUNT:-1}
log=/var/log/xen/console/guest-fuzzer.log

has_console() { xenstore-exists "/local/domain/$(xl domid fuzzer)/console/tty"; }
# Or has ended otherwise.
has_finished() { said fuzzer '^(done: |FAIL guest)' || xl list fuzzer | awk 'END { exit $5 !~ /[sc]/ }'; }

# takes_steps SEED: a domU with it does.
takes_steps() {
    rm -f $log
    printf 'name = "fuzzer"\nkernel = "/mnt/kernels/fuzzer"\nmemory = 128\nvcpus = 4\nmax_event_channels = 131071\non_poweroff = "preserve"\non_crash = "preserve"\nextra = "seed=%s steps=100000"\n' "$1" >/tmp/fuzzer.cfg
    xl create -p /tmp/fuzzer.cfg && eventually has_console && sleep 2 && xl unpause fuzzer || return
    eventually has_finished || xl debug-keys qrd
    xl destroy fuzzer
    grep -E '^FAIL' $log
    tail -n 1 $log
    said fuzzer '^done: [1-9][0-9]* ok, 0 failed'
}

seed=$(sed -n 's/.*krypton\.seed=\([0-9]*\).*/\1/p' /proc/cmdline)
seed=${seed:-$(date +%s)}
before=$(free_memory)
while [ "$count" -gt 0 ]; do
    check "seed $seed comes to nothing" takes_steps "$seed"
    check "all its memory is free again, and accounted for" memory_comes_back "$before"
    seed=$((seed + 1))
    count=$((count - 1))
done
finish

#!/bin/sh
# Processor, memory, timer and process load on all CPUs at once, for krypton.seconds=N (20 if not given).
. /tests/lib.sh

seconds=${KRYPTON_SECONDS:-20}
check "stress-ng runs for $seconds s on $(nproc) CPUs" stress-ng --cpu "$(nproc)" --vm 1 --vm-bytes 64M --vm-keep --verify \
    --timer 1 --fork 2 --timeout "${seconds}s" --temp-path /tmp
finish

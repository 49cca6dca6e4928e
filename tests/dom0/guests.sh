#!/bin/sh
# The bare-metal test guests (tests/guests) as domUs under xl: each says on its PV console what it found and powers itself off.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels

log_of() { echo "/var/log/xen/console/guest-$1.log"; }
has_finished() { said "$1" '^done: '; }
is_gone() { ! xl domid "$1"; }

# runs GUEST: it does, and all that it says holds.
runs() {
    printf 'name = "%s"\nkernel = "/mnt/kernels/%s"\nmemory = 128\nvcpus = 2\nextra = "guest=%s"\n' "$1" "$1" "$1" >"/tmp/$1.cfg"
    xl create "/tmp/$1.cfg" || return
    eventually has_finished "$1"
    eventually is_gone "$1" || xl destroy "$1"
    grep -E '^(FAIL|done:)' "$(log_of "$1")" | tee /dev/console
    said "$1" '^done: [1-9][0-9]* ok, 0 failed'
}

before=$(free_memory)
for kernel in ${KRYPTON_GUESTS:-$(ls /mnt/kernels)}; do
    case $kernel in
    lost+found) ;;
    *)
        check "guest $kernel holds as a domU" runs "$kernel"
        check "all its memory is free again, and accounted for" memory_comes_back "$before"
        ;;
    esac
done
finish

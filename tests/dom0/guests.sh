#!/bin/sh
# The bare-metal test guests (tests/guests) as domUs under xl: each says on its PV console what it found and powers itself off.
. /tests/lib.sh
. /tests/domu.sh

mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels

log_of() { echo "/var/log/xen/console/guest-$1.log"; }
has_finished() { said "$1" '^done: '; }
has_console() { xenstore-exists "/local/domain/$(xl domid "$1")/console/tty"; }

# Sentences of `hypercalls` that speak of dom0: its console, its clock, its rights, a grant table that nobody filled before.
of_dom0='console_write_takes_all_and_returns_zero console_read_without_input_returns_zero
    console_refuses_bad_commands_counts_and_pointers a_grant_frame_can_be_mapped_and_removed
    add_to_physmap_batch_reports_each_page claim_pages_wants_a_plain_request
    control_calls_check_their_interface_version platform_op_checks_version_and_command
    settime_updates_the_shared_wallclock shutdown_of_an_absent_domain_returns_esrch'

# runs GUEST MEBIBYTES: it does on $vcpus vCPUs, and all that it says holds.
runs() {
    extra="guest=$1 steps=10000"
    if [ "$1" = hypercalls ]; then
        for sentence in $of_dom0; do extra="$extra skip=$sentence"; done
    fi
    # It stays when it has ended: of one that is destroyed xenconsoled may not look at the ring again.
    printf 'name = "%s"\nkernel = "/mnt/kernels/%s"\nmemory = %s\nvcpus = %s\nmax_event_channels = 131071\non_poweroff = "preserve"\nextra = "%s"\n' "$1" "$1" "$2" "$vcpus" "$extra" >"/tmp/$1.cfg"
    # Paused until xenconsoled has settled: it gives up a port that it finds closed while it looks at the domain's entries.
    xl create -p "/tmp/$1.cfg" && eventually has_console "$1" && sleep 2 && xl unpause "$1" || return
    eventually has_finished "$1"
    xl destroy "$1"
    grep -E '^FAIL' "$(log_of "$1")"
    tail -n 3 "$(log_of "$1")"
    said "$1" '^done: [1-9][0-9]* ok, 0 failed'
}

before=$(free_memory)
# The others take pages from where a domU of 32 MiB has none.
for kernel in traps vgic hypercalls events grants timers psci fuzzer; do
    vcpus=2
    mebibytes=128
    case $kernel in
    vgic) mebibytes=32 ;;
    fuzzer) vcpus=4 ;;
    esac
    check "guest $kernel holds as a domU of $mebibytes MiB" runs "$kernel" "$mebibytes"
    check "all its memory is free again, and accounted for" memory_comes_back "$before"
done
finish

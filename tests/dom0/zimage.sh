# shellcheck shell=sh
# shellcheck disable=SC2034 # the programs are for who sources this
# For tests that need a domU of a few instructions: it is there in a moment, where Linux takes a while.

# words NUMBER...: as little-endian 32-bit words.
words() {
    for word; do
        # shellcheck disable=SC2059 # the format is what is made here
        printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $((word & 255)) $((word >> 8 & 255)) $((word >> 16 & 255)) $((word >> 24 & 255)))"
    done
}

# make_zimage FILE INSTRUCTION...: a kernel image of 4 KiB in Linux' format: code that skips the header, then magic, start
# (anywhere) and end at 0x24, then the instructions.
make_zimage() {
    file=$1
    shift
    nop=0xE1A00000
    {
        words $nop $nop $nop $nop $nop $nop $nop $nop 0xEA000002 # b 0x30
        words 0x016F2818 0 4096 "$@"
    } >"$file"
    truncate -s 4096 "$file"
}

# psci FUNCTION: the instructions that call it, and wait should it return.
psci() { echo "0xE3A00484 0xE380000$1 0xE1400070 0xE320F003 0xEAFFFFFD"; } # mov r0, #0x84000000; orr; hvc #0; wfi; b
# Waits for ever: wfi; b to it.
waits='0xE320F003 0xEAFFFFFD'
turns_off=$(psci 8) # SYSTEM_OFF
restarts=$(psci 9)  # SYSTEM_RESET
# SCHEDOP_shutdown (crash), as the kernel of a domU that panics: mov r0, #2; add r1, pc, #8; mov r12, #29; hvc #0xea1; b to
# itself; the reason.
crashes_itself='0xE3A00002 0xE28F1008 0xE3A0C01D 0xE140EA71 0xEAFFFFFE 3'
# Three that come to nothing, as there is no memory where a handler would have to be.
reads_nothing='0xE3A00000 0xE5900000' # mov r0, #0; ldr r0, [r0]
jumps_nowhere='0xE3A0F000'            # mov pc, #0
is_undefined='0xE7F000F0'             # udf #0

# start_tiny NAME INSTRUCTIONS WORDS...: what else xl is told.
start_tiny() {
    name=$1
    # shellcheck disable=SC2086 # a list of words
    make_zimage "/tmp/$name.kernel" $2
    shift 2
    printf 'name = "%s"\nkernel = "/tmp/%s.kernel"\nmemory = 32\n' "$name" "$name" >"/tmp/$name.cfg"
    xl create "/tmp/$name.cfg" "$@"
}

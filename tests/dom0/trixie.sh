#!/bin/sh
# The test `move` with the next Debian's kernel in the domU (tests/setup/trixie.sh).
mkdir -p /mnt/kernels
mount -o ro "$(findfs LABEL=kernels)" /mnt/kernels
kernels=/mnt/kernels
linux=6.12
. /tests/move.sh

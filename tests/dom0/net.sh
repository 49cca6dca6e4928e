#!/bin/sh
# QEMU's user network answers through virtio-net.
. /tests/lib.sh

configure() { ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0; }

check "eth0 comes up" configure
# The first packets may go before the link does: ten tries, one answer is enough to go on.
check "the gateway answers" ping -c 10 -i 0.2 -W 5 10.0.2.2
check_output "no packet of 50 is lost" ' 0% packet loss' ping -c 50 -i 0.1 -s 1400 -W 10 10.0.2.2
finish

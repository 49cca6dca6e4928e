#!/bin/sh
# The other machine of the test `two`: its network joins the first one's, and it does what it is told from there (obey.sh).
set -eu

# A machine that was saved has the addresses of the other that goes on from the same state.
ip address delete 192.168.7.1/24 dev xenbr0
ip address add 192.168.7.4/24 dev xenbr0
ip link set eth0 address 52:54:00:12:34:57
ip link set eth0 master xenbr0 up
echo "the other machine is there"
exec nc -ll -p 514 -e /tests/obey.sh

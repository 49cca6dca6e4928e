#!/bin/sh
# A domU moves to another machine and back while it runs, krypton.count=N times (1 if not given): it writes to a disk that both
# see, and checks what it reads; a TCP connection to it and pings go on. Then the cable between the machines is pulled in the
# middle of a move, and the domU goes on where it was.
. /tests/lib.sh
. /tests/domu.sh

count=${KRYPTON_COUNT:-1}
other=192.168.7.4
domu=192.168.7.2

echo test >/tmp/word
ip link set eth0 master xenbr0 up
check_output "the other machine answers" '^Domain-0' sh /tests/on_there.sh $other 'xl list' </dev/null
check "a domU starts" xl create /guests/demo.cfg memory=96 'disk=["phy:/dev/data,xvda,w","phy:/dev/tools,xvdc,r"]'
check "it comes up" says demo '^domU is up: '
type_on demo 'nc -ll -p 23 -e sh &'
sleep 3
echo 'echo its shell answers' | nc $domu 23
xl migrate -s 'sh /tests/on_there.sh' demo $other
xl list
sh /tests/on_there.sh $other 'xl list' </dev/null
echo 'echo its shell answers; uptime' | nc $domu 23
finish

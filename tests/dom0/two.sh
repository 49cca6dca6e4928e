#!/bin/sh
# A domU moves to another machine and back while it runs, krypton.count=N times (1 if not given). It writes to a disk that
# both machines see, and compares what it reads; a TCP connection to it lives on, and ping loses no more than what is sent
# while it stands still and connects its network again. Then the cable between the machines is pulled in the middle of a
# move, and the domU goes on where it was.
. /tests/lib.sh
. /tests/domu.sh

count=${KRYPTON_COUNT:-1}
here=192.168.7.1
there=192.168.7.4
domu=192.168.7.2

# there COMMAND...: on the other machine.
there() { sh /tests/on_there.sh $there "$@" </dev/null; }
# in_domu COMMAND...: in the domU, wherever it runs.
in_domu() { echo "$@" | nc $domu 23; }

obeys() { in_domu 'echo ready' | grep ready; }

joins() { ip link set eth0 master xenbr0 up && eventually there_answers; }
there_answers() { there 'xl list' | grep '^Domain-0'; }
# runs_only_there, runs_only_here: by its own name, on one machine.
runs_only_there() { ! xl domid demo && there 'xl list' | grep '^demo .* [r-][b-]----'; }
runs_only_here() { xl list demo | grep '^demo .* [r-][b-]----' && [ "$(there 'xl list' | wc -l)" = 2 ]; }
there_has_memory() { there '. /tests/lib.sh; . /tests/domu.sh; memory_comes_back '"$1" | grep '^memory: '; }

# fio writes each block of a file with its checksum, in random order, and reads it back.
fio='fio --name=verified --filename=/mnt/xvda/fio --size=1M --rw=randwrite --bs=4k --direct=1 --ioengine=psync'
fio="$fio --verify=crc32c --do_verify=1 --verify_fatal=1 --thread --eta=never --output=/tmp/fio"
writes_on() {
    in_domu "(while [ ! -e /tmp/end ]; do $fio || exit; echo >>/tmp/rounds; done; mv /tmp/rounds /tmp/ended) >/dev/null 2>&1 &"
    eventually has_written 1
}
# more_than NAME MORE NOW: NOW is so many more than it was when this was true last. `check` has a shell of its own: files tell.
more_than() {
    [ "${3:-0}" -ge $(($(cat "/tmp/seen.$1" 2>/dev/null || echo 0) + $2)) ] && echo "$3" >"/tmp/seen.$1"
}
has_written() { more_than rounds "$1" "$(in_domu 'wc -l </tmp/rounds')"; }
has_ended() { in_domu 'touch /tmp/end; wc -l </tmp/ended' | grep '[1-9]'; }

# Numbers go to the domU and come back by one connection, a tenth of a second apart; each is kept.
starts_to_echo() { in_domu 'nc -ll -p 24 -e cat >/dev/null 2>&1 & sleep 1; echo echoes' | grep echoes; }
sends_numbers() {
    n=0
    while [ ! -e /tmp/end ]; do
        n=$((n + 1))
        echo $n
        usleep 100000
    done | nc $domu 24 >/tmp/echoed
}
has_echoed() { more_than echoed "$1" "$(wc -l </tmp/echoed)"; }
# None is missing, doubled or in another place.
all_came_back() { awk '$1 != NR { print "line " NR ": " $1; exit 1 }' /tmp/echoed; }

# Five a second, to wherever it runs.
ping_pause=200
starts_to_ping() {
    ping -i 0.2 $domu >/tmp/pinged 2>&1 &
    echo $! >/tmp/pings
    eventually has_pinged 5
}
has_pinged() { more_than pinged "$1" "$(grep -c ' seq=' /tmp/pinged)"; }
# Milliseconds for each move until its interface is connected again, behind the time for which the domU stands still.
to_connect=10000
# Those without an answer, of all that were sent until the last answer.
few_pings_are_lost() {
    kill "$(cat /tmp/pings)"
    awk -v pause=$ping_pause -v more=$to_connect '
        FNR == NR { still += $1; moves++; next }
        sub(/.* seq=/, "") { if (!seen[$1 + 0]++) answered++; if ($1 + 1 > sent) sent = $1 + 1 }
        END {
            printf "ping: %d of %d without an answer, one each %d ms; ", sent - answered, sent, pause
            printf "%d moves, %d ms still\n", moves, still
            exit !(moves && answered && (sent - answered) * pause <= still + moves * more)
        }' /tmp/still /tmp/pinged >/tmp/lost
    lost=$?
    cat /tmp/lost
    cat /tmp/lost >&3
    return $lost
}

# told COMMAND...: prints how that move went. The figures go to docs/performance.md.
told() {
    "$@" >/tmp/moved 2>&1
    status=$?
    grep -a 'kmove: ' /tmp/moved | tr '\r' '\n' | grep -a 'has moved\|runs on' >&3
    sed -n 's/.* has moved, and stood still for \([0-9]*\) ms.*/\1/p' /tmp/moved >>/tmp/still
    return $status
}
goes() { told xl migrate -s 'sh /tests/on_there.sh' demo $there && eventually runs_only_there; }
comes() { told there "xl migrate -s 'sh /tests/on_there.sh' demo $here 2>&1" && eventually runs_only_here; }
goes_on() { eventually has_written 1 && eventually has_echoed 10; }
lives() { goes_on && eventually has_pinged 5; }

# The cable is pulled some seconds after the move has begun.
is_pulled() {
    (sleep "$1" && ip link set eth0 down) >/dev/null 2>&1 &
    ! told kmove send demo --patience 10 -- sh /tests/on_there.sh $there kmove receive --patience 20 && grep -a 'demo runs on' /tmp/moved
}
is_plugged_in() { ip link set eth0 up && eventually runs_only_here; }

exec 3>&1
free=$(free_memory)
nc -ll -p 514 -e /tests/obey.sh &
check "the other machine answers" joins
there_free=$(there '. /tests/lib.sh; . /tests/domu.sh; free_memory')
# Its netfront loses 2 MiB in each move (docs/migration.md).
check "a domU starts" xl create /guests/demo.cfg memory=$((96 + 4 * count)) 'disk=["phy:/dev/data,xvda,w","phy:/dev/tools,xvdc,r"]'
check "it comes up" says demo '^domU is up: '
type_on demo 'nc -ll -p 23 -e sh &'
check "it is told what to do by its network" eventually obeys
check "it writes to its disk all the time" writes_on
check "it echoes" starts_to_echo
sends_numbers &
check "it answers ping" starts_to_ping
round=1
while [ "$round" -le "$count" ]; do
    check "it moves to the other machine, $round of $count" goes
    check "it writes there, and answers by the same connection" lives
    check "it moves back" comes
    check "it writes here, and answers by the same connection" lives
    round=$((round + 1))
done
check "ping lost no more than its pauses explain" few_pings_are_lost
check "it goes on when the cable is pulled in the middle of a move" is_pulled 3
check "it writes, and answers by the same connection" goes_on
check "nothing of it is left on the other machine" is_plugged_in
touch /tmp/end
check "no block was lost or old" eventually has_ended
check "no number was lost" all_came_back
check "it ends" xl destroy demo
check "all memory of the other machine is free again" there_has_memory "$there_free"
check "all memory of this one too" memory_comes_back "$free"
finish

#!/bin/sh
# on_there.sh HOST COMMAND...: has a machine that runs there.sh do something, with this script's input and output: what ssh is
# where there are keys.
host=$1
shift
{ echo "$@" && exec cat; } | exec nc "$host" 514

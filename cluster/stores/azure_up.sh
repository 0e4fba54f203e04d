#!/usr/bin/env bash
# Start a server of Azure Blob Storage (Azurite) on loopback and print its address, which ends with the account.
#   AZURE_DIR   folder for log and pid (created)      AZURE_PORT  its port
#   AZURITE     folder for npm to install into (by default .cluster/azurite of the checkout)
# Account testaccount has two keys: "first key of the tests" and "second key of the tests" in base64.
# It exits with 3 if there is no npm, so that a machine without it can skip the tests.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${AZURE_DIR:?a folder that may be removed} port=${AZURE_PORT:-18510}
root=${AZURITE:-$(cd "$here/../.." && pwd)/.cluster/azurite} version=3.37.0
mkdir -p "$dir" "$root"
(
    flock 9 # test processes start it at the same time
    if [ ! -x "$root/node_modules/.bin/azurite-blob" ]; then
        command -v npm > "$dir/npm" || { echo "Cannot find npm, which installs Azurite. Install Node.js." >&2; exit 3; }
        npm install --prefix "$root" --no-audit --no-fund --loglevel=error "azurite@$version" > "$dir/npm" 2>&1 || { cat "$dir/npm" >&2; exit 3; }
    fi
) 9> "$root/lock"
keys=$(printf %s "first key of the tests" | base64):$(printf %s "second key of the tests" | base64)
AZURITE_ACCOUNTS="testaccount:$keys" nohup setsid node "$root/node_modules/.bin/azurite-blob" --silent --disableTelemetry \
    --skipApiVersionCheck --inMemoryPersistence --disableProductStyleUrl --blobHost 127.0.0.1 --blobPort "$port" \
    > "$dir/log" 2>&1 < /dev/null &
echo $! > "$dir/pid"
for _ in $(seq 120); do
    if curl -s -o "$dir/status" "http://127.0.0.1:$port/testaccount"; then
        echo "http://127.0.0.1:$port/testaccount"
        exit 0
    fi
    kill -0 "$(cat "$dir/pid")" 2> "$dir/status" || break
    sleep 0.25
done
tail -n 20 "$dir/log" >&2
exit 1

#!/usr/bin/env bash
# Cancel all jobs of the SLURM that up.sh started, stop it, and remove its folder SLURM_FOLDER, which up.sh printed.
set -uo pipefail
folder=${SLURM_FOLDER:?the folder that up.sh printed}
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin:/sbin

# whether a process runs; without a reaper, an ended process stays as a zombie and still accepts signals
runs() {
    local state
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [ -n "$state" ] && [ "$state" != Z ]
}

timeout 5 scancel --full --user="$(id -un)" 2>/dev/null
for _ in $(seq 40); do
    [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
    sleep 0.25
done
pids=()
for file in "$folder"/run/slurmd-*.pid "$folder"/run/slurmctld.pid "$folder"/run/munged.pid; do
    [ -s "$file" ] && pid=$(cat "$file") && kill "$pid" 2>/dev/null && pids+=("$pid")
done
for _ in $(seq 60); do
    left=()
    for pid in "${pids[@]}"; do runs "$pid" && left+=("$pid"); done
    if [ ${#left[@]} = 0 ]; then rm -rf "$folder"; exit 0; fi
    sleep 0.25
done
echo "slurm: killed ${left[*]}, which did not stop" >&2
kill -9 "${left[@]}"
rm -rf "$folder"
exit 1

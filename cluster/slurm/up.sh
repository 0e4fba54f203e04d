#!/usr/bin/env bash
# Start a real SLURM on this machine for tests: munge, a controller and a few nodes of four CPUs each, on loopback.
#   eval "$(bash up.sh [NODES])"      prints the exports of SLURM_CONF and SLURM_FOLDER; down.sh stops it
# Needs root on Debian or Ubuntu, and installs missing packages by apt. It adds a line to /etc/hosts if the machine's
# name does not resolve. It writes all other files into SLURM_FOLDER, a new folder below TMPDIR.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
nodes=${1:-2} cpus=4
export PATH=$PATH:/usr/sbin:/sbin
say() { echo "slurm: $*" >&2; }

if ! command -v munged slurmctld slurmd sbatch >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "SLURM is not installed, and its installation needs root on Debian or Ubuntu"
        exit 3
    fi
    "$here/../apt_install.sh" munge slurm-client slurmctld slurmd
fi
if [ "$(id -u)" != 0 ]; then say "this needs root"; exit 3; fi

host=$(hostname -s)
getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts
folder=$(mktemp -d --tmpdir rainbear-slurm.XXXXXX)
mkdir -p "$folder"/{munge,state,spool,log,run}
chmod 755 "$folder" "$folder/munge"
port=$(python3 - "$nodes" <<'PYTHON'
import random
import socket
import sys


def is_free(port):
    with socket.socket() as one:
        try:
            one.bind(("", port))
        except OSError:
            return False
        return True


# the nodes use the ports after it; none is one that the kernel gives to outgoing connections
bases = random.sample(range(20000, 32000), 1000)
print(next(base for base in bases if all(map(is_free, range(base, base + int(sys.argv[1]) + 1)))))
PYTHON
)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)

export SLURM_CONF=$folder/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=rainbear
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# a requeued job waits until its old credential expires, two minutes by default
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
# nodes may claim more processors than the machine has
SlurmdParameters=config_overrides
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobcomp.txt
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
CONF
for n in $(seq "$nodes"); do
    echo "NodeName=n$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + n)) CPUs=$cpus CoresPerSocket=$cpus RealMemory=$memory"
done >>"$SLURM_CONF"
# jobs of "high" send jobs of "main" back to the queue; LLN spreads jobs over the nodes
echo "PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=60 LLN=YES PriorityTier=1" >>"$SLURM_CONF"
echo "PartitionName=high Nodes=n[1-$nodes] MaxTime=60 LLN=YES PriorityTier=10" >>"$SLURM_CONF"

(umask 077; head -c 1024 /dev/urandom >"$folder/munge/key")
munged --force --num-threads=2 --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed" >&2
slurmctld -c >>"$folder/log/start.log" 2>&1
for n in $(seq "$nodes"); do
    mkdir "$folder/spool/n$n"
    slurmd -N "n$n" >>"$folder/log/start.log" 2>&1
done
for _ in $(seq 120); do
    idle=$(sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l) || idle=0
    if [ "$idle" -ge "$nodes" ]; then
        say "$(sinfo -V), $nodes nodes of $cpus CPUs"
        echo "export SLURM_CONF=$SLURM_CONF SLURM_FOLDER=$folder"
        exit 0
    fi
    sleep 0.25
done
say "the nodes were not idle after 30 s; the ends of its logs:"
tail -n 5 "$folder"/log/* >&2
SLURM_FOLDER=$folder bash "$here/down.sh"
exit 1

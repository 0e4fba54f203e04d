#!/usr/bin/env bash
# Stop the Kubernetes that up.sh started, its containers, mounts and namespace: bash down.sh FOLDER
set -uo pipefail
folder=$(realpath "$1") space=rainbear-k8s
export PATH=$PATH:/usr/sbin:/sbin KUBECONFIG=$folder/kubeconfig
cd "$folder" || exit 0
inside() { nsenter --net="/var/run/netns/$space" "$@"; }

# whether a process runs; without a reaper, an ended process stays as a zombie and still accepts signals
runs() {
    local state
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [ -n "$state" ] && [ "$state" != Z ]
}
stop() {
    local name pid
    for name in "$@"; do
        pid=$(cat "run/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null
        for _ in $(seq 40); do runs "$pid" || break; sleep 0.25; done
        if runs "$pid"; then kill -9 "$pid"; fi
    done
}

stop controllers # else it makes anew what is deleted
timeout 20 nsenter --net="/var/run/netns/$space" kubectl delete pods --all -A --grace-period=1 >/dev/null 2>&1
stop names dns kubelet proxy scheduler
for task in $(ctr -a containerd/socket -n k8s.io tasks ls -q 2>/dev/null); do
    ctr -a containerd/socket -n k8s.io tasks delete --force "$task" >/dev/null 2>&1
done
stop apiserver etcd containerd
awk -v below="$folder/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount -l 2>/dev/null
ip netns del "$space" 2>/dev/null
rm -rf "/etc/netns/$space"
for name in $(ip netns list | awk '/^cni-/ {print $1}'); do
    grep -qx "$name" namespaces.before || ip netns del "$name"
done
find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null
rm -rf "$folder"

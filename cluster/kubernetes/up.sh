#!/usr/bin/env bash
# Start a real Kubernetes of one node in a network namespace of its own, for tests: etcd, API server, controllers,
# scheduler, containerd, kubelet, kube-proxy, and service names by dnsmasq. Nothing listens or routes outside it.
#   bash up.sh PROGRAMS IMAGES FOLDER     the output of build.sh, a folder of image archives, a new folder for state
# Start clients with: ip netns exec rainbear-k8s env KUBECONFIG=FOLDER/kubeconfig ...; down.sh FOLDER stops it.
set -euo pipefail
programs=$(realpath "$1") images=$(realpath "$2") folder=$(realpath -m "$3")
space=rainbear-k8s node=10.97.0.1
export PATH=$PATH:/usr/sbin:/sbin KUBECONFIG=$folder/kubeconfig
if [ "$(id -u)" != 0 ]; then echo "kubernetes: this needs root" >&2; exit 3; fi
if ip netns list | grep -qw "$space"; then echo "kubernetes: the namespace $space exists already; run down.sh" >&2; exit 1; fi
mkdir -p "$folder"/{pki,log,run,cni,containerd,kubelet,hosts}
cd "$folder"
ip netns list | awk '/^cni-/ {print $1}' >namespaces.before

# clients get the cluster's names: `ip netns exec` puts this file over /etc/resolv.conf
mkdir -p "/etc/netns/$space"
printf 'nameserver %s\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:1\n' \
    "$node" >"/etc/netns/$space/resolv.conf"
ip netns add "$space"
# nsenter, because `ip netns exec` hides /sys/fs/cgroup from its child
inside() { nsenter --net="/var/run/netns/$space" "$@"; }
start() {
    local name=$1
    shift
    nohup setsid nsenter --net="/var/run/netns/$space" "$@" >"log/$name.log" 2>&1 </dev/null &
    echo $! >"run/$name.pid"
}
wait_for() { # what, then a command that has to succeed within a minute
    local what=$1
    shift
    for _ in $(seq 240); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.25
    done
    echo "kubernetes: $what did not start; see the logs in $folder/log" >&2
    exit 1
}

inside ip link set lo up
inside ip link add node0 type bridge
inside ip addr add "$node/24" dev node0
inside ip link set node0 up
inside ip route add default via "$node" # kube-proxy wants one
inside sysctl -qw net.ipv4.ip_forward=1
inside sysctl -qw net.bridge.bridge-nf-call-iptables=1 || true

openssl genrsa -out pki/accounts.key 2048 2>/dev/null
token=$(openssl rand -hex 16)
(umask 077; echo "$token,admin,1,system:masters" >tokens.csv)
cat >kubeconfig <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$node:6443", certificate-authority: $folder/pki/apiserver.crt}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin, namespace: default}}]
current-context: test
CONFIG

start etcd etcd --name test --data-dir "$folder/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster test=http://127.0.0.1:2380
start apiserver "$programs/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --authorization-mode=RBAC \
    --bind-address="$node" --advertise-address="$node" --secure-port=6443 --cert-dir="$folder/pki" \
    --token-auth-file=tokens.csv --service-cluster-ip-range=10.96.0.0/24 --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=pki/accounts.key \
    --service-account-signing-key-file=pki/accounts.key --kubelet-preferred-address-types=InternalIP
wait_for "the API server" inside kubectl get --raw /readyz
start controllers "$programs/kube-controller-manager" --kubeconfig=kubeconfig --leader-elect=false --port=0 \
    --bind-address=127.0.0.1 --cert-dir="$folder/pki" --root-ca-file=pki/apiserver.crt \
    --service-account-private-key-file=pki/accounts.key
start scheduler "$programs/kube-scheduler" --kubeconfig=kubeconfig --leader-elect=false --bind-address=127.0.0.1 --port=0

cat >containerd.toml <<CONFIG
version = 2
root = "$folder/containerd/root"
state = "$folder/containerd/state"
[grpc]
  address = "$folder/containerd/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$folder/cni"
CONFIG
cat >cni/10-test.conflist <<'CONFIG'
{"cniVersion": "0.4.0", "name": "test", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.98.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
CONFIG
start containerd containerd -c containerd.toml
wait_for containerd ctr -a containerd/socket version
for image in "$images"/*.tar; do ctr -a containerd/socket -n k8s.io images import "$image" >>log/images.log 2>&1; done

cat >kubelet.yaml <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
clusterDNS: [$node]
clusterDomain: cluster.local
evictionHard: {}
failSwapOn: false
imageGCHighThresholdPercent: 100
resolvConf: ""
CONFIG
start kubelet "$programs/kubelet" --kubeconfig=kubeconfig --config=kubelet.yaml --hostname-override=node1 --node-ip="$node" \
    --root-dir="$folder/kubelet" --cert-dir="$folder/pki" --container-runtime=remote \
    --container-runtime-endpoint="unix://$folder/containerd/socket" \
    --network-plugin=cni --cni-conf-dir="$folder/cni" --cni-bin-dir=/usr/lib/cni
start proxy "$programs/kube-proxy" --kubeconfig=kubeconfig --hostname-override=node1 --proxy-mode=iptables \
    --cluster-cidr=10.98.0.0/24 --metrics-bind-address=127.0.0.1:10249 --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
start dns dnsmasq --no-daemon --no-resolv --no-hosts --listen-address="$node" --bind-interfaces --hostsdir="$folder/hosts" \
    --local=/cluster.local/ --log-facility=-
cat >names.sh <<'SCRIPT'
# tell dnsmasq the address of each service
columns='{range .items[*]}{.spec.clusterIP} {.metadata.name}.{.metadata.namespace}.svc.cluster.local{"\n"}{end}'
while :; do
    kubectl get services -A -o jsonpath="$columns" 2>/dev/null | grep -v '^None' >services || true
    cmp -s services hosts/services || cp services hosts/services
    sleep 0.5
done
SCRIPT
start names bash names.sh
is_ready() { inside kubectl get node node1 | grep -qw Ready; }
wait_for "the node" is_ready
echo "kubernetes: $(inside kubectl get node node1 -o jsonpath='{.status.nodeInfo.kubeletVersion}'), one node" >&2

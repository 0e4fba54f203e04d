#!/usr/bin/env bash
# Build the programs of a real Kubernetes 1.20 from Debian 12's source package `kubernetes` (Debian itself ships only
# kubectl), and install their dependencies. This takes about nine minutes of one processor and 2.7 GB, once.
#   bash build.sh FOLDER      writes kube-apiserver, -controller-manager, -scheduler, -proxy, kubelet and pause there
# Needs root and Debian 12. It leaves the sources of apt alone, and fetches the source package with a separate list.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(realpath -m "${1:?folder for the programs}")
if [ -x "$out/kubelet" ]; then echo "kubernetes: already built in $out"; exit 0; fi
. /etc/os-release
if [ "$(id -u)" != 0 ] || [ "${VERSION_CODENAME:-}" != bookworm ]; then
    echo "kubernetes: the build needs root on Debian 12 (bookworm)" >&2; exit 3
fi
work=$(mktemp -d); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$out" "$work"/{sources,lists/partial,home}

# the first five are for the build, the others run beside Kubernetes
"$here/../apt_install.sh" \
    golang-1.19-go golang-github-modern-go-reflect2-dev dpkg-dev gcc libc6-dev jq make rsync \
    conntrack containerd containernetworking-plugins curl dnsmasq-base etcd-server iproute2 iptables \
    openssl runc
# a kubectl of another package would collide with Debian's
command -v kubectl >/dev/null || "$here/../apt_install.sh" kubernetes-client

cd "$work"
for list in /etc/apt/sources.list.d/*.sources; do
    if [ -e "$list" ]; then sed 's/^Types: .*/Types: deb-src/' "$list" >"sources/$(basename "$list")"; fi
done
if [ -e /etc/apt/sources.list ]; then sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >sources/main.list; fi
apt=(apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources" -o Dir::State::Lists="$work/lists")
"${apt[@]}" update
"${apt[@]}" source --download-only kubernetes
dpkg-source --no-check -x kubernetes_1.20*.dsc tree >/dev/null
cd tree
# the vendored reflect2 1.0.1 breaks the API server under Go 1.18 and later; Debian has 1.0.2 as a package
reflect2=vendor/github.com/modern-go/reflect2
rm "$reflect2"/*.go "$reflect2"/*.s
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect2"
rm -f "$reflect2"/*_test.go

export GOROOT=/usr/lib/go-1.19 GOPATH=$PWD/.go GOCACHE=$work/cache HOME=$work/home CGO_ENABLED=0 GOPROXY=off GOFLAGS=
export PATH=$GOROOT/bin:$PATH
export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=archive
mkdir -p .go/src/k8s.io && ln -s ../../.. .go/src/k8s.io/kubernetes
programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet)
chrt --idle 0 nice -n 19 make WHAT="${programs[*]/#/cmd/}" 2>&1 | tail -n 5
gcc -Os -static -DVERSION=rainbear -o "$out/pause" build/pause/linux/pause.c
for program in "${programs[@]}"; do cp "_output/local/bin/linux/amd64/$program" "$out/"; done
echo "kubernetes: built in $out"

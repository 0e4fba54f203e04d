#!/usr/bin/env bash
# Hosts as network namespaces, joined by a bridge in another namespace. They cannot reach the machine's network.
#   bash hosts.sh up N        rainbear-h0 .. h(N-1), at 10.99.0.10 and up
#   bash hosts.sh cut I       disconnects host I from the others;  bash hosts.sh heal I
#   bash hosts.sh far I       puts host I behind a second pair of links, f0 and vI, which delay.py joins
#   bash hosts.sh down
# Needs root and iproute2.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then echo "hosts: this needs root and iproute2" >&2; exit 3; fi
hub() { ip -n rainbear-hub "$@"; }
case $1 in
up)
    ip netns add rainbear-hub
    hub link add br0 type bridge
    hub link set br0 up
    for i in $(seq 0 $(($2 - 1))); do
        ip netns add "rainbear-h$i"
        ip -n "rainbear-h$i" link set lo up
        hub link add "v$i" type veth peer name eth0 netns "rainbear-h$i"
        hub link set "v$i" master br0 up
        ip -n "rainbear-h$i" addr add "10.99.0.$((10 + i))/24" dev eth0
        ip -n "rainbear-h$i" link set eth0 up
    done
    ;;
cut) hub link set "v$2" down ;;
heal) hub link set "v$2" up ;;
far)
    hub link set "v$2" nomaster promisc on
    hub link add d0 type veth peer name f0
    hub link set d0 master br0 up
    hub link set f0 up promisc on
    ;;
down) for name in $(ip netns list | awk '/^rainbear-h/ {print $1}'); do ip netns del "$name"; done ;;
*) echo "hosts: use up, cut, heal, far or down" >&2; exit 2 ;;
esac

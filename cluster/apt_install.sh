#!/usr/bin/env bash
# Install the Debian packages in the arguments; needs root. Wait up to five minutes for another installation: apt waits
# for its lock when it installs, but not when it updates its lists.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
until said=$(apt-get update -qq 2>&1 > /dev/null); do
    if [[ $said != *"Could not get lock"* ]] || ((SECONDS > 300)); then
        echo "$said" >&2
        exit 1
    fi
    sleep 2
done
apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" > /dev/null

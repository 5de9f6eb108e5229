#!/usr/bin/env bash
# PostgreSQL on a cluster on this machine, killed again and again: the server, all of its processes, the node.
# Usage: crash.sh CYCLES [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

((EUID == 0)) || { echo "crash: it makes network namespaces and mounts, which takes root" >&2; exit 1; }
[[ -e /dev/fuse ]] || { echo "crash: /dev/fuse isn't there: load the kernel's fuse module" >&2; exit 1; }
scripts/build.sh
echo
export HOLDFAST_CYCLES=$1
[[ -z ${2:-} ]] || export HOLDFAST_SEED=$2
exec cargo test --release --locked --package holdfast-tests --test crashes -- --nocapture

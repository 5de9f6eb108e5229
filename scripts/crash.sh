#!/usr/bin/env bash
# PostgreSQL on a cluster on this machine, killed again and again: the server, all of its processes, the node.
# Usage: crash.sh CYCLES [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse crash
scripts/build.sh
echo
export HOLDFAST_CYCLES=$1
[[ -z ${2:-} ]] || export HOLDFAST_SEED=$2
exec cargo test --release --locked --package holdfast-tests --test crashes -- --nocapture

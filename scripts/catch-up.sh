#!/usr/bin/env bash
# How fast a node comes back on a cluster on this machine, how much of the store crosses the network for it, and what recordings
# notice meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse catch-up
scripts/build.sh
echo
exec "$CARGO_TARGET_DIR/release/holdfast-bench" catch-up "$@"

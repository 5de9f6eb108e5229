#!/usr/bin/env bash
# Very many files on a cluster on this machine: what they cost in memory, and whether a failover with them is short.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse many
scripts/build.sh
echo
exec "$CARGO_TARGET_DIR/release/holdfast-bench" many "$@"

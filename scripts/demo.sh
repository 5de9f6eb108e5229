#!/usr/bin/env bash
# A cluster on this machine, three faults under load (with `soak`: as many as one likes), and a reckoning of everything
# that was acknowledged.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse demo
scripts/build.sh
echo
exec "$CARGO_TARGET_DIR/release/holdfast-demo" "$@"

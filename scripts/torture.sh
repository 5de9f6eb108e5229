#!/usr/bin/env bash
# Random operations on a cluster on this machine, under random faults, against a model that knows what must be there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse torture
scripts/build.sh
echo
exec "$CARGO_TARGET_DIR/release/holdfast-torture" "$@"

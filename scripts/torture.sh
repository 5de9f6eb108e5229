#!/usr/bin/env bash
# Random operations on a cluster on this machine, under random faults, against a model that knows what must be there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

((EUID == 0)) || { echo "torture: it makes network namespaces and mounts, which takes root" >&2; exit 1; }
[[ -e /dev/fuse ]] || { echo "torture: /dev/fuse isn't there: load the kernel's fuse module" >&2; exit 1; }
scripts/build.sh
echo
exec "$CARGO_TARGET_DIR/release/holdfast-torture" "$@"

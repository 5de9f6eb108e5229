#!/usr/bin/env bash
# A cluster on this machine, three faults under load (with `soak`: as many as one likes), and a reckoning of everything
# that was acknowledged.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

((EUID == 0)) || { echo "demo: it makes network namespaces and mounts, which takes root" >&2; exit 1; }
[[ -e /dev/fuse ]] || { echo "demo: /dev/fuse isn't there: load the kernel's fuse module" >&2; exit 1; }
scripts/build.sh
echo
exec "$CARGO_TARGET_DIR/release/holdfast-demo" "$@"

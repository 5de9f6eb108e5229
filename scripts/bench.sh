#!/usr/bin/env bash
# Holdfast, GlusterFS, the local disk and the floor under the same loads, by turns, on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse bench
# Only here: nothing else needs it. Its service stays off, as the package leaves it.
if ! command -v glusterd >/dev/null; then
    echo "bench: installing GlusterFS to compare with"
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends glusterfs-server glusterfs-client ||
        echo "bench: GlusterFS can't be installed; it is left out"
fi
scripts/build.sh
echo
exec "$CARGO_TARGET_DIR/release/holdfast-bench" "$@"

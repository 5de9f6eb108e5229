#!/usr/bin/env bash
# Builds the release binaries and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

if ! compgen -G "$CARGO_TARGET_DIR/release/deps/liblibrocksdb_sys-*.rlib" >/dev/null; then
    echo "build: the first build compiles RocksDB: a quarter of an hour on two cores; later ones take a minute"
fi
# The whole workspace, whatever is wanted of it: a smaller choice has other features and is compiled anew.
cargo build --release --workspace --bins --locked
echo
echo "build: done"
for name in holdfast vip-agent holdfast-lab holdfast-demo holdfast-power holdfast-bench; do
    printf '  %s\n' "$CARGO_TARGET_DIR/release/$name"
done

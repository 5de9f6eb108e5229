#!/usr/bin/env bash
# Deliberate bugs, each a patch in tests/mutations: is the simulation strong enough to find it? Each is applied to a copy of the
# tree as it is committed, built, and run until it breaks a promise, for SEEDS seeds at most. Ends with a table; fails if one wasn't found.
# Usage: mutations.sh [NAME ...]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

seeds=${SEEDS:-3000}
# A folder of its own, or what is built from the copy would be taken for what the tree here gives; begun with what is there, so that
# RocksDB isn't compiled again.
[[ -d $CARGO_TARGET_DIR-mutants ]] || cp --archive "$CARGO_TARGET_DIR" "$CARGO_TARGET_DIR-mutants"
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR-mutants
copy=$(mktemp --directory)
trap 'git worktree remove --force "$copy/tree" 2>/dev/null || true; rm -rf "$copy"' EXIT
git worktree add --quiet --detach "$copy/tree" HEAD

names=("$@")
((${#names[@]})) || names=($(basename --suffix=.patch --multiple tests/mutations/*.patch))
rows=()
missed=0
for name in "${names[@]}"; do
    patch=$PWD/tests/mutations/$name.patch
    git -C "$copy/tree" apply "$patch"
    # The simulation alone: nothing that needs the binaries.
    (cd "$copy/tree" && cargo build --quiet --release --locked --package holdfast-tests --no-default-features --bin holdfast-sim)
    if said=$("$CARGO_TARGET_DIR/release/holdfast-sim" --mutant-friendly --seeds "$seeds"); then
        missed=$((missed + 1))
        said="NOT FOUND in $seeds seeds"
    fi
    said=$(tail -n 1 <<<"$said")
    echo "$name: $said"
    rows+=("$(printf '%-28s %s' "$name" "$said")")
    git -C "$copy/tree" checkout --quiet -- .
done
echo
printf '%s\n' "${rows[@]}" | cut -c1-200
echo "$((${#names[@]} - missed)) of ${#names[@]} deliberate bugs were found, each within $seeds seeds"
((missed == 0))

#!/usr/bin/env bash
# Nodes of a cluster on this machine lose power under load, one, two or all three at once, with page cache and disk cache; then
# everything that was acknowledged is looked for. With MUTATION=NAME the daemons have that deliberate bug of tests/mutations:
# it ought to fail then.
# Usage: power.sh CUTS [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse power
scripts/build.sh
program=$CARGO_TARGET_DIR/release/holdfast-power
options=(--cuts "$1")
[[ -z ${2:-} ]] || options+=(--seed "$2")
if [[ -n ${MUTATION:-} ]]; then
    # Built from a copy and in a folder of their own, as mutations.sh does it.
    [[ -d $CARGO_TARGET_DIR-mutants ]] || cp --archive "$CARGO_TARGET_DIR" "$CARGO_TARGET_DIR-mutants"
    copy=$(mktemp --directory)
    trap 'git worktree remove --force "$copy/tree" 2>/dev/null || true; rm -rf "$copy"' EXIT
    git worktree add --quiet --detach "$copy/tree" HEAD
    git -C "$copy/tree" apply "$PWD/tests/mutations/$MUTATION.patch"
    (cd "$copy/tree" && CARGO_TARGET_DIR=$CARGO_TARGET_DIR-mutants cargo build --release --locked --workspace --bins)
    "$program" "${options[@]}" --binaries "$CARGO_TARGET_DIR-mutants/release"
    exit
fi
echo
exec "$program" "${options[@]}"

#!/usr/bin/env bash
# What the digest costs that the replicas compare all the time: two clusters on this machine under the same loads, by turns, one
# of them with daemons that reckon none (tests/builds/without_digest.patch).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse digest
scripts/build.sh
# Built from a copy and in a folder of their own, as mutations.sh does it.
[[ -d $CARGO_TARGET_DIR-mutants ]] || cp --archive "$CARGO_TARGET_DIR" "$CARGO_TARGET_DIR-mutants"
copy=$(mktemp --directory)
trap 'git worktree remove --force "$copy/tree" 2>/dev/null || true; rm -rf "$copy"' EXIT
git worktree add --quiet --detach "$copy/tree" HEAD
git -C "$copy/tree" apply "$PWD/tests/builds/without_digest.patch"
echo "digest: building the daemons without it"
(cd "$copy/tree" && CARGO_TARGET_DIR=$CARGO_TARGET_DIR-mutants cargo build --release --locked --workspace --bins)
echo
"$CARGO_TARGET_DIR/release/holdfast-bench" builds --other "$CARGO_TARGET_DIR-mutants/release" "$@"

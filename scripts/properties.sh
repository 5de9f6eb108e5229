#!/usr/bin/env bash
# The properties with so many cases each (those that need fewer: as many times more than they have in `make test`), from a seed that is drawn or given.
# Usage: properties.sh [CASES [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

export PROPTEST_CASES=${1:-5000}
export PROPTEST_RNG_SEED=${2:-$((RANDOM << 15 | RANDOM))}
echo "properties: $PROPTEST_CASES cases each, PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED"
cargo test --release --locked --no-fail-fast --workspace --exclude holdfast-tests --exclude vip-agent
exec cargo test --release --locked --no-fail-fast --package vip-agent --lib

#!/usr/bin/env bash
# Three nodes compared again and again while everything on them changes as fast as it goes: no difference may be seen that is none.
# Usage: checks.sh MINUTES
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

needs_root_and_fuse checks
scripts/build.sh
echo
export HOLDFAST_CHECK_SECONDS=$(($1 * 60))
exec cargo test --release --locked --package holdfast-tests --test check -- --nocapture under_the_heaviest_load

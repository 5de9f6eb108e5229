#!/usr/bin/env bash
# The whole product in one thread under a virtual clock: SEEDS seeds (from FROM on) on all cores, or one (SEED=n). The last line
# says what they came to. Needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

cargo build --release --locked --package holdfast-tests --bin holdfast-sim
if [[ -n ${SEED:-} ]]; then
    exec "$CARGO_TARGET_DIR/release/holdfast-sim" --seed "$SEED" "$@"
fi
exec "$CARGO_TARGET_DIR/release/holdfast-sim" --seeds "${SEEDS:-1000}" --from "${FROM:-1}" "$@"

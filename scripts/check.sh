#!/usr/bin/env bash
# Formatting, lints and, where cargo-deny is installed, licences and advisories.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

echo "check: format"
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
echo "check: lints"
cargo clippy --release --locked --workspace --all-targets -- -D warnings
echo "check: deliberate bugs"
for patch in tests/mutations/*.patch; do
    git apply --check "$patch" || { echo "check: $patch no longer fits what it breaks: make it anew"; exit 1; }
done
if command -v cargo-deny >/dev/null; then
    echo "check: licences, advisories, bans"
    cargo deny --locked check
else
    echo "check: cargo-deny isn't installed, so deny.toml isn't checked (\`cargo install --locked cargo-deny\`)"
fi
echo "check: good"

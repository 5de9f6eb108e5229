#!/usr/bin/env bash
# Fuzzes every decoder of bytes from a disk or a peer: each target of fuzz/fuzz_targets for SECONDS_EACH seconds, as many side by side
# as there are processors. Ends with a table; fails if anything was found. Any stable toolchain does, no root.
#   TARGET=name       that one alone
#   INPUT=file        with TARGET: that input once, to see again what was found
#   SEED=n            begins with the corpus alone, and tries the same inputs each time, as far as the time reaches
#   KEEP=1            afterwards: what reached new code goes into fuzz/corpus, as few inputs as do it
# A found input is kept in fuzz/artifacts/TARGET. Once mended it belongs into fuzz/corpus/TARGET, where each crate's tests try it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

each=${SECONDS_EACH:-60}
# A folder of its own: everything in it is compiled with counters, and without RocksDB.
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR-fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
binaries=$CARGO_TARGET_DIR/$host/release
work=$CARGO_TARGET_DIR/inputs
logs=$(mktemp --directory)
trap 'rm -rf "$logs"' EXIT
[[ -z ${SEED:-} ]] || work=$logs/inputs

if [[ -n ${TARGET:-} ]]; then
    names=("$TARGET")
    [[ -e fuzz/fuzz_targets/$TARGET.rs ]] || { echo "fuzz: there is no target $TARGET in fuzz/fuzz_targets" >&2; exit 1; }
else
    names=($(basename --suffix=.rs --multiple fuzz/fuzz_targets/*.rs))
fi

# As `cargo fuzz build` does it, but for the sanitizer, which needs a nightly toolchain: nothing here is unsafe code. With --target,
# build scripts and macros are compiled without.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --manifest-path fuzz/Cargo.toml --release --locked --target "$host" ${TARGET:+--bin "$TARGET"}

# What takes ten seconds, or that much memory, is a finding like a panic.
run() {
    local name=$1
    shift
    "$binaries/$name" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$name/" "$@"
}

if [[ -n ${INPUT:-} ]]; then
    run "${TARGET:?INPUT needs TARGET}" "$INPUT"
    exit
fi

fuzz() {
    local name=$1
    mkdir --parents "$work/$name" "fuzz/artifacts/$name"
    local status=0
    run "$name" -max_total_time="$each" -seed="${SEED:-0}" "$work/$name" "fuzz/corpus/$name" >"$logs/$name" 2>&1 || status=$?
    echo "$status" >"$logs/$name.status"
}

echo "fuzz: ${#names[@]} targets, $each s each, $(nproc) side by side"
for name in "${names[@]}"; do
    while (($(jobs -rp | wc -l) >= $(nproc))); do
        wait -n || true
    done
    fuzz "$name" &
done
wait

# Code reached: `cov` where it begins with what is known, and at its end.
reached() { sed -n "s/^#[0-9]*[[:space:]]*$1.*cov: \([0-9]*\) .*/\1/p" "$2" | tail -n 1; }

found=0
printf '%-14s %12s %10s %8s %s\n' target runs reached new findings
for name in "${names[@]}"; do
    log=$logs/$name
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    before=$(reached INITED "$log")
    after=$(reached '[A-Z]' "$log")
    said=0
    if [[ $(<"$log.status") != 0 ]]; then
        said=1
        found=$((found + 1))
    fi
    printf '%-14s %12s %10s %8s %s\n' "$name" "${runs:-?}" "${after:-?}" "$((${after:-0} - ${before:-0}))" "$said"
done
for name in "${names[@]}"; do
    [[ $(<"$logs/$name.status") != 0 ]] || continue
    echo
    grep --extended-regexp --after-context=3 'panicked at|ERROR: libFuzzer|SUMMARY' "$logs/$name" | head -n 12 || tail -n 12 "$logs/$name"
    input=$(sed -n 's/.*Test unit written to //p' "$logs/$name" | tail -n 1)
    echo "again: TARGET=$name INPUT=$input scripts/fuzz.sh"
done
if [[ -n ${KEEP:-} ]]; then
    for name in "${names[@]}"; do
        run "$name" -set_cover_merge=1 -use_counters=0 "fuzz/corpus/$name" "$work/$name" >"$logs/$name" 2>&1 || tail -n 5 "$logs/$name"
    done
fi
echo "$((${#names[@]} - found)) of ${#names[@]} targets found nothing in $each s each"
((found == 0))

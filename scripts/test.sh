#!/usr/bin/env bash
# What must hold before a commit. The last line is `N passed, N failed`; the exit code says the same.
# A step that fails without naming a failed test (formatting, a lint, a test program that crashed) counts as one.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/sum.sh

# The properties begin from one seed, so that a run can be repeated; `make properties` takes others, and far more cases.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
# A mount that hangs must not hang the run.
step_limit=45m
steps=5
number=0
# Steps that failed, for the summary.
failed=()
work=$(mktemp --directory)
log=$work/log
: >"$log"
mkfifo "$work/said"
trap 'rm -rf "$work"' EXIT
trap interrupted INT TERM HUP
# Steps run as jobs: an interrupt comes here first, and ends the step with all that it has started.
set -m

interrupted() {
    trap '' INT TERM HUP
    echo "test: interrupted" >&2
    # `timeout` hands it on to the step's whole process group.
    [[ -s $work/pid ]] && kill -TERM "$(<"$work/pid")" 2>/dev/null && wait "$running"
    exit 130
}

step() {
    local title=$1 began=$SECONDS status before shown
    shift
    number=$((number + 1))
    echo
    echo "== $number/$steps $title"
    before=$(sum_failed "$log")
    # Not a pipeline: that would end with whoever holds its end last, and what hangs may hold it for ever.
    tee -a "$log" <"$work/said" &
    shown=$!
    bash -c 'echo $$ >"$0"; exec timeout "$@"' "$work/pid" --kill-after=60 "$step_limit" "$@" >"$work/said" 2>&1 &
    running=$!
    wait "$running"
    status=$?
    : >"$work/pid"
    timeout 10 tail --pid="$shown" -f /dev/null || kill "$shown"
    if ((status == 124 || status == 137)); then
        echo "test: stopped after $step_limit" | tee -a "$log"
    fi
    if ((status != 0)); then
        failed+=("$title (exit code $status)")
        (($(sum_failed "$log") > before)) || count_failure "$log" "$title"
    fi
    echo "== $((SECONDS - began)) s"
    return "$status"
}

finish() {
    echo
    echo "== $((SECONDS / 60)) min $((SECONDS % 60)) s"
    for title in "${failed[@]}"; do
        echo "failed: $title"
    done
    failed_tests "$log"
    echo "$(sum_passed "$log") passed, $(sum_failed "$log") failed"
    ((${#failed[@]} == 0)) && exit 0
    exit 1
}

need() {
    echo "test: $1" >&2
    count_failure "$log" "what the tests need"
    failed+=("what the tests need: $1")
}

((EUID == 0)) || need "not root: the tests make mounts and network namespaces"
[[ -e /dev/fuse ]] || need "/dev/fuse isn't there: load the kernel's fuse module"
for program in cargo ip tc ping setpriv unshare mkfs.ext4 mkfs.xfs setfacl logrotate nats-server python3; do
    command -v "$program" >/dev/null || need "there is no $program: run scripts/setup.sh"
done
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || need "there is no PostgreSQL: run scripts/setup.sh"
((${#failed[@]} == 0)) || finish

# The cluster tests start the binaries that lie beside them.
step "build" scripts/build.sh || finish
step "format and lints" scripts/check.sh
step "units, properties and simulations; vip-agent in network namespaces" \
    cargo test --release --locked --no-fail-fast --workspace --exclude holdfast-tests
step "every decoder against anything" env SECONDS_EACH=60 SEED=1 scripts/fuzz.sh
step "clusters of three nodes" cargo test --release --locked --no-fail-fast -p holdfast-tests -- --test-threads=1
finish

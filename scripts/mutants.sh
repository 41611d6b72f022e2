#!/usr/bin/env bash
# Plants one bug after the other in the coordinator's core, and checks that its property tests
# catch each: a test that cannot fail proves nothing. Every patch in coordinator/core/mutants is
# a bug, and says in its first line which. The tests run with the cases that `make test` runs,
# 256 random sequences each time, or as many as PROPTEST_CASES says.
#
#     scripts/mutants.sh [NAME...]     all of them, or those named
#
# Fails if a bug is not caught, or if a patch does not fit the sources any more. The checkout is
# not touched: bugs are planted in a copy below cargo's target directory, which is removed at the
# end. What cargo builds from it stays there, so that only the core is compiled again.
set -euo pipefail
shopt -s inherit_errexit

cd -- "$(dirname -- "$0")/.."

readonly patches=$PWD/coordinator/core/mutants
# A test that runs for longer does not end.
readonly patience_s=600
export PROPTEST_CASES=${PROPTEST_CASES:-256}
# Which sequence fails does not matter: neither shrink it nor run it again with the next bug.
export PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
export RUST_BACKTRACE=0 CARGO_TERM_COLOR=never

target=$(cargo metadata --locked --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
readonly target=$target/mutants copy=$target/mutants/sources
export CARGO_TARGET_DIR=$target

if [ $# -gt 0 ]; then
    mutants=("${@/%/.patch}")
    mutants=("${mutants[@]/#/$patches/}")
else
    mutants=("$patches"/*.patch)
fi

. scripts/copy.sh
enter_copy mutants

build() {
    cargo test --locked --quiet --package dockercomp-coordinator-core --lib --no-run \
        > "$target/build.log" 2>&1 9>&-
}

# Runs the property tests; their output goes to a file.
run() {
    timeout "$patience_s" cargo test --locked --package dockercomp-coordinator-core --lib -- \
        tests::properties > "$target/test.log" 2>&1 9>&-
}

echo "mutants: ${#mutants[@]} bugs, $PROPTEST_CASES random sequences for each" >&2
build || { cat "$target/build.log" >&2; exit 1; }
run || { cat "$target/test.log" >&2; echo "mutants: the tests fail without a bug" >&2; exit 1; }

n_bad=0
for patch in "${mutants[@]}"; do
    name=$(basename "$patch" .patch)
    bug=$(sed -n '1s/^# //p' "$patch")
    if ! git apply "$patch"; then
        printf '%-12s %-20s %s\n' "DOES NOT FIT" "$name" "$bug"
        n_bad=$((n_bad + 1))
        continue
    fi
    if ! build; then
        printf '%-12s %-20s %s\n' "NO PROGRAM" "$name" "$bug"
        grep -m 1 '^error' "$target/build.log" >&2 || true
        n_bad=$((n_bad + 1))
    else
        began=$SECONDS
        if run; then
            printf '%-12s %-20s %s\n' "NOT caught" "$name" "$bug"
            n_bad=$((n_bad + 1))
        else
            tests=$(sed -n 's/^test tests::properties::\(.*\) \.\.\. FAILED$/\1/p' "$target/test.log")
            printf '%-12s %-20s %s\n' caught "$name" "$bug"
            # What panicked first says it best.
            why=$(grep -m 1 -A 1 ' panicked at ' "$target/test.log" | tail -n 1 | cut -c 1-100)
            printf '%-12s by %s after %d s: %s\n' "" "${tests//$'\n'/ and }" \
                $((SECONDS - began)) "$why"
        fi
    fi
    git apply --reverse "$patch"
done

if [ "$n_bad" -gt 0 ]; then
    echo "mutants: $n_bad of ${#mutants[@]} were not caught" >&2
    exit 1
fi
echo "mutants: all caught" >&2

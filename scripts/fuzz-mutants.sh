#!/usr/bin/env bash
# Plants one bug after the other in the coordinator's core and in the node's agent, and checks
# that drawn worlds find each: `sim fuzz` must fail within SEEDS seeds, and `sim minimise` must
# shrink the world that failed to a scenario file of fewer than ten hosts that fails again.
#
#     scripts/fuzz-mutants.sh [PATCH...]    the bugs below, or those in these files
#
# Prints a line per bug: the seed that found it, the seconds that took, the exit code (1 a
# panic, 3 safety, 4 liveness), and the hosts of the smallest world. Fails if a bug is not
# found, is not shrunk, or does not fit the sources any more. The checkout is not touched: bugs
# are planted in a copy below cargo's target directory, and the files of the smallest worlds
# stay beside it.
set -euo pipefail
shopt -s inherit_errexit

cd -- "$(dirname -- "$0")/.."

readonly seeds=${SEEDS:-1000} hosts_max=9
# Seeds that are run before it is looked whether one has failed.
readonly round=50
# A round that runs for longer does not end: that names no seed, and the script fails.
readonly patience_s=600
export RUST_BACKTRACE=0 CARGO_TERM_COLOR=never

if [ $# -gt 0 ]; then
    mutants=()
    for patch in "$@"; do mutants+=("$(realpath -- "$patch")"); done
else
    mutants=(
        "$PWD/coordinator/core/mutants/quorum-one-short.patch"
        "$PWD/coordinator/core/mutants/operator-twice.patch"
        "$PWD/coordinator/core/mutants/plurality-wins.patch"
        "$PWD/node/agent/mutants/inputs-strand.patch"
    )
fi

target=$(cargo metadata --locked --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
readonly target=$target/fuzz-mutants copy=$target/fuzz-mutants/sources
export CARGO_TARGET_DIR=$target
readonly sim=$target/debug/dockercomp-sim

. scripts/copy.sh
enter_copy fuzz-mutants

# With debug assertions: the core's own checks are part of what is tried.
build() {
    cargo build --locked --quiet --package dockercomp-simulations > "$target/build.log" 2>&1 9>&-
}

# Runs seeds until one fails; prints it and the exit code, or nothing.
find_seed() {
    local first code seed
    for ((first = 1; first <= seeds; first += round)); do
        code=0
        timeout "$patience_s" "$sim" fuzz --first-seed "$first" --seeds "$round" --quiet \
            > /dev/null 2> "$target/fuzz.log" || code=$?
        if [ "$code" -ne 0 ]; then
            seed=$(sed -n 's/^seed \([0-9]*\) failed.*/\1/p' "$target/fuzz.log")
            echo "${seed:?no seed is named} $code"
            return
        fi
    done
}

n_bad=0
bad() {
    printf '%-20s %s: %s\n' "$1" "$2" "$3"
    n_bad=$((n_bad + 1))
}

build || { cat "$target/build.log" >&2; exit 1; }
"$sim" fuzz --seeds "$round" --quiet > /dev/null ||
    { echo "fuzz-mutants: worlds fail without a bug" >&2; exit 1; }
# A world that fails without the bug does not show it.
cp "$sim" "$target/sound"
printf '%-20s %6s %8s %5s %6s  %s\n' bug seed seconds exit hosts "what is wrong in the smallest world"
for patch in "${mutants[@]}"; do
    name=$(basename "$patch" .patch)
    if ! git apply "$patch"; then
        bad "$name" "DOES NOT FIT" "$patch"
        continue
    fi
    if ! build; then
        bad "$name" "NO PROGRAM" "$(grep -m 1 '^error' "$target/build.log")"
    else
        began=$SECONDS
        seed='' code=''
        read -r seed code < <(find_seed) || true
        took=$((SECONDS - began))
        smallest=$target/$name.toml
        if [ -z "${seed:-}" ]; then
            bad "$name" "NOT FOUND" "within $seeds seeds"
        elif ! "$target/sound" fuzz --seed "$seed" --quiet > /dev/null 2>&1; then
            bad "$name" "NOT FOUND" "seed $seed fails without it as well"
        else
            rm -f "$smallest"
            # It exits as the smallest world does.
            "$sim" minimise --seed "$seed" --out "$smallest" \
                > "$target/minimise.log" 2> /dev/null || true
            hosts=$(sed -n 's/^population = //p' "$smallest")
            again=0
            "$sim" replay "$smallest" --seed "$seed" --quiet \
                > "$target/replay.log" 2>&1 || again=$?
            why=$(head -n 1 "$target/minimise.log" | cut -c 1-100)
            printf '%-20s %6d %8d %5d %6d  %s\n' \
                "$name" "$seed" "$took" "$code" "$hosts" "$why"
            if [ "$hosts" -gt "$hosts_max" ] || [ "$again" -eq 0 ]; then
                bad "$name" "NOT SHRUNK" "$hosts hosts, replay exits with $again"
            fi
        fi
    fi
    git apply --reverse "$patch"
done

if [ "$n_bad" -gt 0 ]; then
    echo "fuzz-mutants: $n_bad of ${#mutants[@]} were not found and shrunk" >&2
    exit 1
fi
echo "fuzz-mutants: all found" >&2

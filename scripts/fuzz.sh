#!/usr/bin/env bash
# Fuzzes the decoders, and keeps of what was found what reaches code that nothing else reaches.
#
#   scripts/fuzz.sh [TARGET ...]               all by default
#
# SECONDS_EACH: how long for each target, 60 by default.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."

die() { echo "fuzz: $*" >&2; exit 1; }
command -v cargo-fuzz > /dev/null || die "cargo-fuzz is not installed; fix: cargo install --locked cargo-fuzz"
cargo +nightly --version > /dev/null 2>&1 || die "needs a nightly compiler; fix: rustup toolchain install nightly"

# Inputs longer than this are not tried, in bytes: what decoders do is done by short ones too,
# and the corpus stays small.
readonly max_len=4096
readonly seconds=${SECONDS_EACH:-60}
[ $# -gt 0 ] || set -- $(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')

found=$(mktemp -d)
trap 'rm -rf -- "$found"' EXIT
fuzz() { # target folder ... -- option ...
    cargo +nightly fuzz run --fuzz-dir fuzz --features libfuzzer "$@" > "$found/log" 2>&1 ||
        { tail -n 60 "$found/log" >&2; die "$1: failed; what made it fail is in fuzz/artifacts/$1"; }
}
for target; do
    corpus=fuzz/corpus/$target
    [ -d "$corpus" ] || die "there is no target $target"
    cp -r -- "$corpus" "$found/$target"
    fuzz "$target" "$found/$target" -- -max_total_time="$seconds" -max_len="$max_len"
    runs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$found/log")
    before=$(find "$corpus" -type f | wc -l)
    fuzz "$target" "$corpus" "$found/$target" -- -merge=1 -max_len="$max_len"
    echo "$target: ${runs:-?} runs in $seconds s, $before inputs in the corpus, now $(find "$corpus" -type f | wc -l)"
done

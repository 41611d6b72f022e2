#!/usr/bin/env bash
# Compares how fast data travels between two processes with other tools; needs root, for two
# network namespaces with a cable between them and no other way out.
#
#   scripts/bench-transfer.sh [LOAD ...]       1MiB, 256MiB, 4GiB, 50000-files, swarm; all by default
#
# BENCH_DIR: where the data lies meanwhile, up to 16 GiB of it; default is the target directory.
# BENCH_QUIET: a command before the measurement, for machines where others work too.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."

die() { echo "bench-transfer: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root, to make network namespaces"
command -v ip > /dev/null || die "needs ip; fix: apt-get install iproute2"

target=$(cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
bench=$(cargo bench --locked -p dockercomp-peer --bench transfer --no-run 2>&1 | tee /dev/stderr |
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ -x "$bench" ] || die "the benchmark was not built"

left=dc-left-$$ right=dc-right-$$
work=$(mktemp -d "${BENCH_DIR:-$target}/bench-transfer.XXXXXX")
cleanup() {
    ip netns delete "$left" 2> /dev/null || true
    ip netns delete "$right" 2> /dev/null || true
    rm -rf -- "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

ip netns add "$left"
ip netns add "$right"
ip link add cable netns "$left" type veth peer name cable netns "$right"
for end in "$left 10.77.0.1" "$right 10.77.0.2"; do
    read -r namespace address <<< "$end"
    ip -n "$namespace" address add "$address/24" dev cable
    ip -n "$namespace" link set lo up
    ip -n "$namespace" link set cable up
done

command -v sendme > /dev/null || echo "bench-transfer: for comparison: cargo install --locked sendme@0.37.1" >&2
command -v rsync > /dev/null || echo "bench-transfer: for comparison: apt-get install rsync" >&2
command -v b3sum > /dev/null || echo "bench-transfer: for comparison: apt-get install b3sum" >&2
mkdir -p "$target/bench"
${BENCH_QUIET:-} "$bench" "$left" "$right" "$work" "$target/bench/transfer.json" "$@"

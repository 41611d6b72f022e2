#!/usr/bin/env bash
# Exports a dataset as a CAR file and has it read by an independent IPLD implementation.
# Needs python3 with venv, and PyPI on the first run; without them it says so and skips.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."

target=$1
python=$(scripts/python.sh "$target/interop" blake3,dag_cbor,ipld_car,multiformats \
    ipld-car dag-cbor multiformats blake3)
if [ -z "$python" ]; then
    echo "skipped: no CAR file was read by another implementation"
    exit 0
fi
work=$(mktemp -d)
processes=()
cleanup() {
    for process in "${processes[@]}"; do kill "$process" 2> /dev/null || true; done
    wait
    rm -rf -- "$work"
}
trap cleanup EXIT

mkdir -p "$work/folder/a"
head -c 20000000 /dev/urandom > "$work/folder/a/large"
head -c 3000 /dev/urandom > "$work/folder/a/small"
: > "$work/folder/empty"
dockercomp=$target/debug/dockercomp
# Starts a process of the network and waits until it says something that matches the first
# argument, which `said` then is.
start() {
    local pattern=$1 log=$work/$2.log
    shift
    "$dockercomp" "$@" --ip 127.0.0.1 --log error > "$log" &
    processes+=($!)
    until said=$(grep -om 1 "$pattern" "$log"); do kill -0 "${processes[-1]}"; sleep 0.1; done
}
start '/ip4/127.0.0.1/tcp/.*' bootstrap start --data-dir "$work/bootstrap"
start 'dockercomp://.*' coordinator start --data-dir "$work/data" --bootstrap "$said"
for chunker in fixed:1MiB fastcdc; do
    cid=$("$dockercomp" dataset add "$work/folder" --chunker "$chunker" --data-dir "$work/data" | head -n 1)
    "$dockercomp" dataset export "$cid" "$work/$chunker.car" --data-dir "$work/data" > /dev/null
    "$python" scripts/check-car.py "$work/$chunker.car" "$cid" "$work/folder"
done

#!/usr/bin/env bash
# Exports a dataset as a CAR file and has it read by an independent IPLD implementation.
# Needs python3 with venv, and PyPI on the first run.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."

target=$1
python=$target/interop/bin/python
if ! [ -x "$python" ]; then
    python3 -m venv "$target/interop"
    "$python" -m pip install --quiet ipld-car dag-cbor multiformats blake3
fi
work=$(mktemp -d)
process=
cleanup() {
    if [ -n "$process" ]; then kill "$process" 2> /dev/null || true; wait "$process" 2> /dev/null || true; fi
    rm -rf -- "$work"
}
trap cleanup EXIT

mkdir -p "$work/folder/a"
head -c 20000000 /dev/urandom > "$work/folder/a/large"
head -c 3000 /dev/urandom > "$work/folder/a/small"
: > "$work/folder/empty"
dockercomp=$target/debug/dockercomp
"$dockercomp" coordinator start --ip 127.0.0.1 --data-dir "$work/data" > "$work/log" &
process=$!
until [ -s "$work/log" ]; do kill -0 "$process"; sleep 0.1; done
for chunker in fixed:1MiB fastcdc; do
    cid=$("$dockercomp" dataset add "$work/folder" --chunker "$chunker" --data-dir "$work/data" | head -n 1)
    "$dockercomp" dataset export "$cid" "$work/$chunker.car" --data-dir "$work/data" > /dev/null
    "$python" scripts/check-car.py "$work/$chunker.car" "$work/folder"
done

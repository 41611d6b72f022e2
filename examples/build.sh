#!/usr/bin/env bash
# Builds the example programs, each for both executors:
#
#     examples/<name>/build/<name>         static Linux binary, packed into an image at submission
#     examples/<name>/build/<name>.wasm    WebAssembly module (WASI preview 1)
#
# Needs cargo and a C linker, and neither Docker nor root. Missing targets of the compiler are
# added where rustup is. Takes a second when everything is up to date. Honours CARGO_TARGET_DIR.
set -euo pipefail

readonly programs=(count mandelbrot wait wordcount)
readonly linux=x86_64-unknown-linux-musl
readonly wasi=wasm32-wasip1

cd -- "$(dirname -- "$0")/.."

require_target() {
    local target=$1 libraries
    libraries=$(rustc --print target-libdir --target "$target")
    if [ -d "$libraries" ]; then
        return
    fi
    if command -v rustup > /dev/null; then
        rustup target add "$target"
        return
    fi
    echo "$0: the compiler has no libraries for $target" >&2
    echo "fix: install rustup (https://rustup.rs), then run: rustup target add $target" >&2
    exit 1
}

# Replaces a file at once and only if it changes, since a running demo may be reading it.
put() {
    local from=$1 to=$2
    if ! cmp -s -- "$from" "$to"; then
        mkdir -p -- "$(dirname -- "$to")"
        cp -- "$from" "$to.new"
        mv -- "$to.new" "$to"
    fi
    printf '%9d bytes  %s\n' "$(wc -c < "$to")" "$to"
}

require_target "$linux"
require_target "$wasi"

packages=()
for program in "${programs[@]}"; do
    packages+=(--package "$program")
done
cargo build --locked --profile program --target "$linux" --target "$wasi" "${packages[@]}"

target_dir=$(cargo metadata --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
for program in "${programs[@]}"; do
    put "$target_dir/$linux/program/$program" "examples/$program/build/$program"
    put "$target_dir/$wasi/program/$program.wasm" "examples/$program/build/$program.wasm"
done

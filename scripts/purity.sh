#!/usr/bin/env bash
# Fails if a pure crate can reach the world: its dependencies, and theirs, may hold no crate for
# sockets, files, clocks, threads or randomness. ARCHITECTURE.md says what pure is good for.
# Builds nothing.
set -euo pipefail
shopt -s inherit_errexit

readonly pure=(dockercomp-coordinator-core dockercomp-agent dockercomp-exchange-core)

# Whole names of crates, as regular expressions.
readonly impure=(
    'async-(io|std|global-executor)' futures-timer mio polling smol socket2 'tokio(-.*)?'
    'axum(-.*)?' 'hyper(-.*)?' 'libp2p(-.*)?' 'quinn(-.*)?' reqwest rustls tonic ureq
    'bollard(-.*)?' librocksdb-sys nix rocksdb rustix sysinfo tempfile walkdir 'wasmtime(-.*)?'
    chrono crossbeam-channel fastrand getrandom 'rand(_.*)?' rayon time
)
# Keys and signatures: no I/O, and without its feature `rand` no randomness.
readonly allowed='libp2p-identity'

cd -- "$(dirname -- "$0")/.."

# Prints the impure crates under a package.
impure_under() {
    local tree pattern
    tree=$(cargo tree --locked --package "$1" --edges normal --prefix none)
    pattern=$(IFS='|' && echo "${impure[*]}")
    cut -d ' ' -f 1 <<< "$tree" | sort -u | { grep -xE "$pattern" || true; } |
        { grep -vxF "$allowed" || true; }
}

# A check that cannot fail proves nothing: asked about the network, it must find these.
found=$(impure_under dockercomp-network)
for crate in getrandom libp2p libp2p-swarm mio socket2 tokio; do
    if ! grep -qxF "$crate" <<< "$found"; then
        echo "purity: the check is broken: it misses $crate under dockercomp-network" >&2
        exit 1
    fi
done

for package in "${pure[@]}"; do
    found=$(impure_under "$package")
    if [ -n "$found" ]; then
        echo "purity: $package must stay pure, but depends on:" >&2
        echo "    ${found//$'\n'/$'\n'    }" >&2
        echo "fix: cargo tree -p $package -e normal -i $(head -n 1 <<< "$found")" >&2
        exit 1
    fi
    echo "purity: $package depends on nothing that does I/O, tells time or is random"
done

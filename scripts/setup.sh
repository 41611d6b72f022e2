#!/usr/bin/env bash
# Makes this machine ready to build and test dockerComp:
#
#   1. a Rust compiler with the two targets of the example programs,
#   2. a C++ compiler, and libclang, with which bindgen reads RocksDB's header,
#   3. RocksDB's library from the distribution, if it is one that our crate can link,
#   4. .cargo/config.toml, which tells every cargo in this checkout where that library is,
#   5. a static busybox, which some tests run in containers.
#
# What is missing is installed by root with apt-get; anybody else is shown the command.
# Checks look for what a build looks for, not for package names, so a compiler from elsewhere is
# as good. Nothing missing: nothing is changed and nothing is asked of the network.
# docs/decisions/0002 says why the distribution's RocksDB.
set -euo pipefail
shopt -s inherit_errexit

readonly targets=(x86_64-unknown-linux-musl wasm32-wasip1)
# What the crate rocksdb 0.20.1 links: Debian 12 has 7.8, the crate itself carries 7.9.
readonly rocksdb_linkable='^7\.[89]$'
readonly config=.cargo/config.toml
readonly marker='# Written by scripts/setup.sh, which replaces it; without this line it is yours.'

cd -- "$(dirname -- "$0")/.."

say() { echo "setup: $*" >&2; }

# --- Rust -----------------------------------------------------------------------------------

require_rust() {
    if command -v cargo > /dev/null && command -v rustc > /dev/null; then
        return
    fi
    say "there is no Rust compiler on the PATH"
    if [ -x "$HOME/.cargo/bin/cargo" ]; then
        say "fix: . \"\$HOME/.cargo/env\""
    else
        say "fix: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        say "     (or see https://rustup.rs), then open a new terminal"
    fi
    exit 1
}

require_targets() {
    local rustlib target missing=()
    # The first call in a checkout also makes rustup install the toolchain that it pins.
    rustlib=$(rustc --print sysroot)/lib/rustlib
    for target in "${targets[@]}"; do
        [ -d "$rustlib/$target/lib" ] || missing+=("$target")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if ! command -v rustup > /dev/null; then
        say "the Rust compiler has no libraries for ${missing[*]}"
        say "fix: install rustup (https://rustup.rs), then run: rustup target add ${missing[*]}"
        exit 1
    fi
    say "rustup target add ${missing[*]}"
    rustup target add "${missing[@]}"
}

# --- What the distribution has --------------------------------------------------------------

has_cxx_compiler() { command -v cc > /dev/null && command -v c++ > /dev/null; }

has_any() { compgen -G "$1" > /dev/null; }

# The library, and the headers that belong to it: without them bindgen finds no stddef.h.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    { has_any '/usr/lib/llvm-*/lib/libclang*.so*' && has_any '/usr/lib/llvm-*/lib/clang/*/include/stddef.h'; } ||
        { has_any '/usr/lib*/libclang*.so*' && has_any '/usr/lib*/clang/*/include/stddef.h'; }
}

has_static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox > /dev/null 2>&1; }

# Prints the directory of the RocksDB headers.
rocksdb_include_dir() {
    local dir
    for dir in /usr/include /usr/local/include; do
        if [ -f "$dir/rocksdb/version.h" ]; then
            echo "$dir"
            return
        fi
    done
    return 1
}

# Prints the version of the installed RocksDB, as in 7.8.
rocksdb_version() {
    local include
    include=$(rocksdb_include_dir) || return 1
    sed -n -e 's/^#define ROCKSDB_MAJOR \([0-9]*\).*/\1/p' \
        -e 's/^#define ROCKSDB_MINOR \([0-9]*\).*/\1/p' "$include/rocksdb/version.h" | paste -sd.
}

# Prints the directory of the RocksDB library, which the compiler knows on every architecture.
rocksdb_lib_dir() {
    local library
    library=$(cc -print-file-name=librocksdb.so 2> /dev/null) || return 1
    case $library in
        /*) (cd -- "$(dirname -- "$library")" && pwd -P) ;;
        *) return 1 ;;
    esac
}

has_linkable_rocksdb() { rocksdb_lib_dir > /dev/null && [[ $(rocksdb_version) =~ $rocksdb_linkable ]]; }

# Whether to ask apt-get for RocksDB: not if what it offers is known to be of no use.
wants_packaged_rocksdb() {
    local offered
    if [ -n "${ROCKSDB_LIB_DIR:-}" ] || has_linkable_rocksdb || ! command -v apt-cache > /dev/null; then
        return 1
    fi
    offered=$(apt-cache policy librocksdb-dev | sed -n 's/^  Candidate: \([0-9]*\.[0-9]*\).*/\1/p')
    if [ -z "$offered" ]; then
        # Not known yet, or not in the archive: settled by apt-get update.
        [ "${1:-}" != updated ]
    else
        [[ $offered =~ $rocksdb_linkable ]]
    fi
}

# Sets `needed`, without which nothing builds, and `wanted`, without which it takes longer or
# tests are skipped: names of Debian packages.
find_missing() {
    needed=() wanted=()
    has_cxx_compiler || needed+=(g++)
    has_libclang || needed+=(libclang-dev)
    ! wants_packaged_rocksdb "${1:-}" || needed+=(librocksdb-dev)
    has_static_busybox || wanted+=(busybox-static)
}

install_missing() {
    local needed wanted command
    find_missing
    if [ ${#needed[@]} -eq 0 ] && [ ${#wanted[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        say "apt-get update"
        apt-get update -qq >&2
        find_missing updated
        set -- "${needed[@]}" "${wanted[@]}"
        say "apt-get install -y --no-install-recommends $*"
        apt-get install -y -qq --no-install-recommends "$@" >&2
        return
    fi
    set -- "${needed[@]}" "${wanted[@]}"
    command="sudo apt-get update && sudo apt-get install -y $*"
    if [ ${#needed[@]} -gt 0 ]; then
        say "missing, by the names of Debian's packages: ${needed[*]}"
        say "fix: $command"
        exit 1
    fi
    say "without ${wanted[*]} the tests that run it in containers are skipped; fix: $command"
}

# --- Cargo's configuration ------------------------------------------------------------------

wanted_config() {
    echo "$marker"
    echo "[env]"
    if has_linkable_rocksdb; then
        echo "ROCKSDB_LIB_DIR = \"$(rocksdb_lib_dir)\""
        echo "ROCKSDB_INCLUDE_DIR = \"$(rocksdb_include_dir)\""
    else
        echo "# RocksDB 7.9 leaves this out, and compilers since GCC 13 insist on it."
        echo 'CXXFLAGS = "-include cstdint"'
    fi
}

configure_cargo() {
    local installed
    if [ -n "${ROCKSDB_LIB_DIR:-}" ]; then
        say "RocksDB is the one in \$ROCKSDB_LIB_DIR, $ROCKSDB_LIB_DIR"
        return
    fi
    if ! has_linkable_rocksdb; then
        installed=$(rocksdb_version) || installed=none
        say "RocksDB will be compiled from source, which takes over half an hour:" \
            "7.8 or 7.9 can be linked, installed is $installed"
    fi
    if [ -f "$config" ] && ! grep -qxF "$marker" "$config"; then
        if has_linkable_rocksdb && ! grep -q '^ROCKSDB_LIB_DIR' "$config"; then
            say "$config is yours, so it is left alone; to link RocksDB it needs:"
            wanted_config | tail -n +2 >&2
        fi
        return
    fi
    if [ "$(wanted_config)" != "$(cat "$config" 2> /dev/null)" ]; then
        mkdir -p .cargo
        wanted_config > "$config.new"
        mv -- "$config.new" "$config"
        say "wrote $config"
    fi
}

require_rust
install_missing
require_targets
configure_cargo

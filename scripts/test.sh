#!/usr/bin/env bash
# Runs all tests of the workspace: with cargo-nextest where it is installed, else with cargo test.
# The example programs must be there: `make test` builds them first.
set -euo pipefail

cd -- "$(dirname -- "$0")/.."

profile=default show=()
if engine=$(docker version --format '{{.Server.Version}}' 2> /dev/null); then
    echo "test: Docker engine $engine answers, so the tests that need one run" >&2
else
    echo "test: no Docker engine answers, so the tests that need one print that they were skipped" >&2
    profile=no-engine show=(-- --show-output)
fi

if cargo nextest --version > /dev/null 2>&1; then
    # nextest does not run the examples in documentation.
    cargo test --locked --workspace --doc
    cargo nextest run --locked --workspace --profile "$profile"
else
    cargo test --locked --workspace --no-fail-fast "${show[@]}"
fi

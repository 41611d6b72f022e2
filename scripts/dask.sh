#!/usr/bin/env bash
# Makes a virtual environment with Dask in the folder given, and prints its Python; nothing where
# that is not to be had.
set -euo pipefail

readonly VERSION=2025.9.1
exec "$(dirname -- "$0")/python.sh" "${1:?usage: scripts/dask.sh FOLDER}" distributed \
    "dask==$VERSION" "distributed==$VERSION"

#!/usr/bin/env bash
# Makes a virtual environment with Dask in the folder given, and prints its Python. Where that
# is not to be had it says why, prints nothing and does not fail: a benchmark goes on without.
set -euo pipefail

readonly VERSION=2025.9.1
folder=${1:?usage: scripts/dask.sh FOLDER}

if ! "$folder/bin/python" -c 'import distributed' 2> /dev/null; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    if ! { python3 -m venv "$folder" \
        && "$folder/bin/pip" install --quiet --disable-pip-version-check \
            "dask==$VERSION" "distributed==$VERSION"; } > "$log" 2>&1; then
        echo "dask: not measured: $(tail -n 1 "$log")" >&2
        exit 0
    fi
fi
echo "$folder/bin/python"

#!/usr/bin/env bash
# Makes a virtual environment with packages from PyPI in the folder given, unless they are there,
# and prints its Python. Where that is not to be had it says why, prints nothing and does not
# fail: whoever asked goes on without, or skips.
set -euo pipefail

usage='usage: scripts/python.sh FOLDER MODULE[,MODULE...] PACKAGE...'
folder=${1:?$usage} modules=${2:?$usage}
shift 2

if ! "$folder/bin/python" -c "import $modules" 2> /dev/null; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    if ! { python3 -m venv --clear "$folder" \
        && "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"; } > "$log" 2>&1; then
        echo "python: not to be had: $(tail -n 1 "$log")" >&2
        exit 0
    fi
fi
echo "$folder/bin/python"

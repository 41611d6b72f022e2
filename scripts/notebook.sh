#!/usr/bin/env bash
# Runs the notebook on a small study, so that it keeps up with the columns of runs.parquet.
# Needs python3 with venv, and PyPI on the first run; without them it says so and skips.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."

target=${1:?usage: scripts/notebook.sh TARGET-DIRECTORY}
python=$(scripts/python.sh "$target/notebook" matplotlib,nbconvert,ipykernel,pandas,pyarrow,scipy \
    matplotlib nbconvert ipykernel pandas pyarrow scipy)
if [ -z "$python" ]; then
    echo "skipped: the notebook was not run"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

"$target/debug/dockercomp" sim run simulations/scenarios/trust-against-saboteurs.toml \
    --seeds 3 --set jobs.main.units=500 --out "$work/study" > /dev/null
DOCKERCOMP_STUDY=$work/study "$python" -m nbconvert --execute --to html --log-level WARN \
    --output-dir "$target/notebook" simulations/notebooks/reading-a-study.ipynb
echo "the notebook ran: $target/notebook/reading-a-study.html"

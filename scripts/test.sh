#!/usr/bin/env bash
# Sets up, then checks the code's form, its types, and what it does: scripts/test.sh [arguments for pytest]
# Three test files at a time, as on two cores they wait for processes a third of the time, in the order of
# their names: by the number of tests the few slow ones would come last. -n 0 for one, as --pdb needs it.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
python=$(scripts/setup.sh --print-python)
"$python" -m ruff check --quiet .
"$python" -m ruff format --quiet --check .
"$python" -m mypy --no-error-summary
OMP_NUM_THREADS=1 exec "$python" -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder "$@"

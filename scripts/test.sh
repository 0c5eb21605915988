#!/usr/bin/env bash
# Sets up and runs the tests: scripts/test.sh [arguments for pytest]
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
python=$(scripts/setup.sh --print-python)
OMP_NUM_THREADS=1 exec "$python" -m pytest -q "$@"

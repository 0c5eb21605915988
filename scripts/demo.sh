#!/usr/bin/env bash
# The main job: sets up, then trains plain fine-tuning and the methods on the demo's task.
# Arguments go to examples/demo/run.py (--methods, --seeds, --jobs, --out-dir).
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
python=$(bash "$root/scripts/setup.sh" --print-python)
# The model is tiny: more threads than one only get in each other's way.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$python" "$root/examples/demo/run.py" "$@"

#!/usr/bin/env bash
# The main job: sets up, then trains plain fine-tuning and the methods on the demo's task.
# Arguments go to adv-plugins demo (--methods, --seeds, --jobs, --out-dir).
# The model is tiny: more threads than one only get in each other's way.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/adv-plugins.sh" demo "$@"

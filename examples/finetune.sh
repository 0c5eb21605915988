#!/usr/bin/env bash
# Fine-tune on a task: finetune.sh TASK METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
#   examples/finetune.sh RTE rat --data-dir glue --checkpoint roberta.large/model.pt
# tasks/RTE.sh and its like beside this file name the task. Tasks, methods: tasks.tsv, recipes.tsv; all options: --help.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
python=$(bash "$root/scripts/setup.sh" --print-python)
exec "$python" "$root/examples/finetune.py" "$@"

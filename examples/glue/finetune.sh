#!/usr/bin/env bash
# Fine-tune on a GLUE task: finetune.sh TASK METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
#   examples/glue/finetune.sh RTE rat --glue-dir glue --checkpoint roberta.large/model.pt
# Tasks and methods: ../recipes.tsv; all options: --help.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$(bash "$root/scripts/setup.sh" --print-python)
exec "$python" "$root/examples/finetune.py" "$@"

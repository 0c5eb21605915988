#!/usr/bin/env bash
# Fine-tune on a task: finetune.sh TASK METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
#   examples/finetune.sh RTE rat --data-dir glue --checkpoint roberta.large/model.pt
# tasks/RTE.sh and its like beside this file name the task. All options: --help.
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../scripts/adv-plugins.sh" finetune "$@"

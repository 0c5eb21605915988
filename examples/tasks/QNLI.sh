#!/usr/bin/env bash
# QNLI, does the sentence answer the question: QNLI.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" QNLI "$@"

#!/usr/bin/env bash
# QNLI-ranking, which of two sentences answers the question: QNLI-ranking.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" QNLI-ranking "$@"

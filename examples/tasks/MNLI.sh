#!/usr/bin/env bash
# MNLI, inference: MNLI.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" MNLI "$@"

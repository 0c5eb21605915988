#!/usr/bin/env bash
# PAWS-QQP, adversarial duplicates: PAWS-QQP.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" PAWS-QQP "$@"

#!/usr/bin/env bash
# ARC-Challenge, science questions: ARC-Challenge.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" ARC-Challenge "$@"

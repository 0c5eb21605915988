#!/usr/bin/env bash
# ARC-Easy, science questions: ARC-Easy.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" ARC-Easy "$@"

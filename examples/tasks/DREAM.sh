#!/usr/bin/env bash
# DREAM, questions on dialogues: DREAM.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" DREAM "$@"

#!/usr/bin/env bash
# MRPC, paraphrases: MRPC.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" MRPC "$@"

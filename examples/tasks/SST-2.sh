#!/usr/bin/env bash
# SST-2, sentiment of a sentence: SST-2.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" SST-2 "$@"

#!/usr/bin/env bash
# TNEWS, Chinese news titles: TNEWS.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" TNEWS "$@"

#!/usr/bin/env bash
# IFLYTEK, Chinese descriptions of apps: IFLYTEK.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" IFLYTEK "$@"

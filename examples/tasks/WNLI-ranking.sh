#!/usr/bin/env bash
# WNLI-ranking, which of two readings is right: WNLI-ranking.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" WNLI-ranking "$@"

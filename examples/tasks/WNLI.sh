#!/usr/bin/env bash
# WNLI, pronouns, as pairs: WNLI.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" WNLI "$@"

#!/usr/bin/env bash
# IMDB, sentiment of reviews: IMDB.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" IMDB "$@"

#!/usr/bin/env bash
# AG-News, topics of news: AG-News.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" AG-News "$@"

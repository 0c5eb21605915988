#!/usr/bin/env bash
# CommonsenseQA-ranking, for weights without GPT-2's BPE: CommonsenseQA-ranking.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" CommonsenseQA-ranking "$@"

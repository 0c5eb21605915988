#!/usr/bin/env bash
# Continue the pre-training of RoBERTa with ASA: pretrain.sh (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
#   examples/pretraining/pretrain.sh --text wiki.txt --bpe-dir gpt2_bpe --checkpoint roberta.base/model.pt
# All options: --help.
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/adv-plugins.sh" pretrain "$@"

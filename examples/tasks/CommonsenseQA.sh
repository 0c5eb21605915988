#!/usr/bin/env bash
# CommonsenseQA, fairseq's commonsense_qa: CommonsenseQA.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" CommonsenseQA "$@"

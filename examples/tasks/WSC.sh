#!/usr/bin/env bash
# WSC, which of two nouns the pronoun means: WSC.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" WSC "$@"

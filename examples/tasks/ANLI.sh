#!/usr/bin/env bash
# ANLI, adversarial inference: ANLI.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" ANLI "$@"

#!/usr/bin/env bash
# WNUT-17, named entities: WNUT-17.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" WNUT-17 "$@"

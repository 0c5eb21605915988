#!/usr/bin/env bash
# CoLA, acceptability of a sentence: CoLA.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" CoLA "$@"

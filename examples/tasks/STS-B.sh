#!/usr/bin/env bash
# STS-B, similarity, a score: STS-B.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" STS-B "$@"

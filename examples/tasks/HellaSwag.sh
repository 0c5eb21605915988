#!/usr/bin/env bash
# HellaSwag, what happens next: HellaSwag.sh METHOD (--checkpoint FILE | --from-scratch) [options] [-- fairseq-train flags]
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../finetune.sh" HellaSwag "$@"

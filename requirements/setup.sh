#!/usr/bin/env bash
# Makes .venv: Python 3.10, the five backends, the development tools and this repository in editable form.
# `make demo`, `make test` and `make lint` call it first; when nothing has changed it compares a few hashes and returns.
# It uses uv where there is one, else a uv that pip puts into .cache/uv, else plain pip.
set -eu -o pipefail
unset CDPATH PYTHONHOME PYTHONPATH VIRTUAL_ENV
export LC_ALL=C PIP_DISABLE_PIP_VERSION_CHECK=1

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
STAMP=.venv/polymae.stamp           # the root and what was installed; written last, so it is there only when all is well
UNFINISHED=.cache/setup.unfinished # an install that was cut short leaves half-copied packages: start afresh
REQUIREMENTS=(-r requirements/all.txt -r requirements/dev.txt)
cd "$ROOT"
trap 'exit 130' INT # uv ends on its own terms at Ctrl-C, and this script must not carry on with pip
trap 'exit 143' TERM

fingerprint() {
    printf '%s\n' "$ROOT" # scripts in .venv/bin hold its path, so a moved repository needs a new one
    sha256sum requirements/*.txt requirements/setup.sh pyproject.toml
}

is_python310() {
    "$1" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1
}

find_python310() {
    local python
    for python in python3.10 python3 python "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.10*/bin/python3.10; do
        if is_python310 "$python"; then
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

find_uv() {
    local uv python
    for uv in uv "$ROOT/.cache/uv/bin/uv"; do
        if "$uv" --version >/dev/null 2>&1; then
            echo "$uv"
            return
        fi
    done
    for python in "$PYTHON" python3 python; do
        rm -rf .cache/uv .cache/uv.part
        if "$python" -m pip install --quiet --target .cache/uv.part "$(grep "^uv==" requirements/dev.txt)" >/dev/null 2>&1; then
            mv .cache/uv.part .cache/uv
            echo "$ROOT/.cache/uv/bin/uv"
            return
        fi
    done
}

honour_pip_mirror() { # uv does not read pip's settings, where many keep the address of a nearby mirror
    local index=${PIP_INDEX_URL:-}
    if [[ -z $index && -n $PYTHON ]]; then
        index=$("$PYTHON" -m pip config get global.index-url 2>/dev/null || true)
    fi
    if [[ -n $index && -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
        export UV_DEFAULT_INDEX=$index
    fi
}

begin() { # from here on .venv is not to be trusted until the stamp is back
    touch "$UNFINISHED"
    rm -f "$STAMP"
}

install_with_uv() {
    echo "Setting up .venv with uv: about 13 GB, a few minutes the first time."
    honour_pip_mirror
    if [[ -d .venv ]]; then # a working environment is left alone where the new one cannot be had, as without a network
        "$UV" pip install --python .venv/bin/python --quiet --dry-run "${REQUIREMENTS[@]}" || return
    fi
    begin
    if [[ ! -d .venv ]]; then
        "$UV" venv --quiet --seed --python "${PYTHON:-3.10}" .venv || return
    fi
    "$UV" pip install --python .venv/bin/python "${REQUIREMENTS[@]}" || return
    "$UV" pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation --reinstall-package polymae -e .
}

install_with_pip() {
    echo "Setting up .venv with pip: about 13 GB, five minutes or more the first time."
    if [[ -d .venv ]]; then
        .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null || return
        .venv/bin/python -m pip install --quiet --dry-run "${REQUIREMENTS[@]}" || return
    fi
    begin
    if [[ ! -d .venv ]]; then
        "$PYTHON" -m venv .venv || return
    fi
    .venv/bin/python -m pip install --progress-bar off "${REQUIREMENTS[@]}" || return
    .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
}

no_python310() {
    cat >&2 <<'MESSAGE'
setup: found no Python 3.10 and could not fetch one; it is the only version that all five backends support.
Get one in any of these ways, then run the same command again:
  uv python install 3.10
  pyenv install 3.10
  conda create --name polymae python=3.10 && conda activate polymae
MESSAGE
    exit 1
}

mkdir -p .cache
if command -v flock >/dev/null; then # two at once: the second waits, then finds the work done
    exec 9>.cache/setup.lock
    flock --nonblock 9 || { echo "Waiting for another set-up of $ROOT."; flock 9; }
fi

wanted=$(fingerprint)
if [[ -x .venv/bin/python && -x .venv/bin/polymae && -f $STAMP && ! -e $UNFINISHED && $(<"$STAMP") == "$wanted" ]]; then
    exit 0
fi
if [[ $(uname -s) != Linux || $(uname -m) != x86_64 ]]; then
    echo "setup: the five frameworks have wheels in common for Linux on x86-64 only; this is $(uname -sm)." >&2
    echo "Install those you need into a Python 3.10 environment of your own, for example: pip install -e '.[torch]'" >&2
    exit 1
fi

PYTHON=$(find_python310)
UV=$(find_uv)
if [[ -z $PYTHON && -z $UV ]]; then
    no_python310
fi

moved=false
if [[ -f $STAMP && $(head -n 1 "$STAMP") != "$ROOT" ]]; then
    moved=true
fi
if [[ -e $UNFINISHED || $moved == true ]] || ! is_python310 .venv/bin/python; then
    rm -rf .venv
fi

if [[ -z $UV ]] || ! install_with_uv; then
    [[ -n $PYTHON ]] || no_python310
    if [[ -n $UV ]]; then
        echo "setup: uv did not manage; trying pip." >&2
    fi
    if [[ -e $UNFINISHED ]]; then
        rm -rf .venv
    fi
    install_with_pip || { echo "setup: pip did not manage; mend what it says above, then run this again." >&2; exit 1; }
fi

printf '%s\n' "$wanted" >"$STAMP.part"
rm -f "$UNFINISHED"
mv "$STAMP.part" "$STAMP"
echo "Done: .venv is ready (activate it with: source .venv/bin/activate)."

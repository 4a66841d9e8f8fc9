#!/usr/bin/env bash
# Make a virtual environment with everything unjam needs: scripts/setup.sh VENV
#
# Does nothing when the environment is current: its stamp holds the digest of all that decides
# its content, and the folder it was made in (virtual environments cannot be moved).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
stamp=$venv/.unjam-stamp

key="$(cat requirements-dev.lock pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1) $PWD"
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ] && [ -x "$venv/bin/python" ]; then
    if [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$venv/bin/python")" ]; then
        exit 0
    fi
fi

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

supported() { # does interpreter $1 run, and is it 3.11 to 3.13 (or just ≥ 3.11, when asked for)?
    "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, ${2:-13}))" 2>/dev/null
}

python=${PYTHON:-}
held=$(version_of "$venv/bin/python")
at_home=$(grep -c "^command = .* $(realpath -m "$venv")\$" "$venv/pyvenv.cfg" 2>/dev/null || true)
if [ -z "$python" ] && [ -n "$held" ] && [ "$at_home" = 1 ]; then
    python=$venv/bin/python # a sound environment, made in this place: keep its interpreter
fi
if [ -n "$python" ]; then
    supported "$python" 99 || fail "PYTHON=$python does not run or is older than 3.11"
else
    for candidate in python3 python3.13 python3.12 python3.11; do
        if supported "$candidate"; then python=$candidate && break; fi
    done
    [ -n "$python" ] || fail "needs Python 3.11, 3.12 or 3.13: install one (Debian 12+, Ubuntu 24.04+: apt install python3 python3-venv), or name it: make setup PYTHON=/path/to/python3.12"
fi
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"

# A broken, moved or other interpreter's environment is made anew; a sound one is brought up to date.
if [ "$held" != "$(version_of "$python")" ] || [ "$at_home" != 1 ]; then
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail "could not make $venv (is the disk full?)"
fi
rm -f "$stamp"

say "installing the locked packages; the first time this downloads about 500 MB"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input -qq)
"${pip[@]}" install --require-hashes --prefer-binary -r requirements-dev.lock ||
    fail "pip could not install requirements-dev.lock (see above); run it again when the cause is gone"
"${pip[@]}" install --no-deps --no-build-isolation --editable . ||
    fail "pip could not install unjam itself (see above)"

say "building the local embedding model (once; offline)"
"$venv/bin/python" -m unjam.embedding.model_build || fail "the local model could not be built (see above)"

echo "$key" > "$stamp"
say "done: $venv/bin/unjam"

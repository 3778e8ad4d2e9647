#!/bin/sh
# Makes .venv and installs this project into it, at the versions of constraints.txt.
# `sh tools/setup.sh dev` adds what tests and lint need.
set -eu
PYTHON=${PYTHON:-python3}

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "npc-server needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version)." >&2
    exit 1
fi
if [ ! -x .venv/bin/python ]; then
    # Debian keeps the venv module's pip in a package of its own.
    if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv
        else
            echo "Python's venv module is missing. Install it (Debian: python3-venv)." >&2
            exit 1
        fi
    fi
    echo "Making .venv"
    "$PYTHON" -m venv .venv
fi
echo "Installing packages${1:+ ($1)}"
# An older pip does not know dependency groups.
.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt pip
.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e . ${1:+--group "$1"}
touch ".venv/${1:-ready}"

#!/usr/bin/env bash
# Makes the virtual environment; on Debian and Ubuntu `venv` is a package of its own.
set -euo pipefail
venv=$2
# Called from within an environment (perhaps this very one), the Python below it counts.
python=$("$1" -c 'import os, sys; print(sys.executable if sys.prefix == sys.base_prefix else os.path.join(sys.base_prefix, "bin", "python3"))')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $("$python" --version) is too old: Python 3.11 or newer is needed (make PYTHON=python3.12 ...)" >&2
  exit 2
}
rm -rf "$venv"
if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
  rm -rf "$venv"
  version=$("$python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
  package="python$version-venv"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing $package ..." >&2
    apt-get -qq update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$package" >/dev/null
    "$python" -m venv "$venv"
  else
    echo "error: $python cannot make virtual environments. Install it first: sudo apt-get install $package" >&2
    exit 2
  fi
fi

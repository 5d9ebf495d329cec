#!/usr/bin/env bash
# Brings the real programs that the tests talk to. What cannot be had is said by the test that skips.
set -uo pipefail
packages=()
command -v chromium >/dev/null || packages+=(chromium)
fc-list 2>/dev/null | grep -i 'noto.*cjk' >/dev/null || packages+=(fonts-noto-cjk)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages+=(postgresql)
command -v puppet >/dev/null || packages+=(puppet-agent)
[ -x /usr/sbin/nginx ] || packages+=(nginx)
[ -x /usr/sbin/mariadbd ] || packages+=(mariadb-server)
command -v ip >/dev/null || packages+=(iproute2)
[ ${#packages[@]} -gt 0 ] || need_apt=no

as_root() {
  if [ "$(id -u)" = 0 ]; then env "$@"
  elif sudo -n true 2>/dev/null; then sudo -n env "$@"
  else return 1; fi
}

apt() { as_root DEBIAN_FRONTEND=noninteractive apt-get "$@"; }

if [ "${need_apt:-yes}" = yes ] && command -v apt-get >/dev/null; then
  echo "Installing for the tests: ${packages[*]} ..." >&2
  # The tests start what they need themselves: no service of a package begins here, unless somebody has said otherwise.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy" 2>/dev/null
  fi
  apt -qq update >/dev/null 2>&1
  apt -qq install -y --no-install-recommends "${packages[@]}" >/dev/null 2>&1 ||
    echo "note: could not install ${packages[*]}; the tests that need them are skipped" >&2
  # Ansible asks facter for facts wherever it is, two seconds of Ruby each time. Puppet itself uses the library.
  case " ${packages[*]} " in *" puppet-agent "*) as_root chmod a-x /usr/bin/facter 2>/dev/null ;; esac
  [ -z "$(trap -p EXIT)" ] || { as_root rm -f "$policy"; trap - EXIT INT TERM; }
fi

tools=.venv/tools

# promtool comes inside Debian's prometheus package, which would also start a server: take the one program only.
promtool() {
  if ! type -P promtool >/dev/null && [ ! -x "$tools/promtool" ] && command -v dpkg-deb >/dev/null; then
    mkdir -p "$tools/unpacked"
    (cd "$tools" && apt-get -qq download prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb unpacked &&
      mv unpacked/usr/bin/promtool promtool) || echo "note: promtool could not be had; its tests are skipped" >&2
    rm -rf "$tools/unpacked" "$tools"/prometheus_*.deb
  fi
}

# torch and transformers for the engine of that name: only where pip gets torch's CPU build (190 MB), which is in the
# lock; the one with CUDA would bring several GB.
torch() {
  python=.venv/bin/python
  if [ -x "$python" ] && ! "$python" -c 'import torch, transformers' >/dev/null 2>&1; then
    wanted=$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements-transformers.lock)
    found=$("$python" -m pip install --quiet --dry-run --ignore-installed --no-deps --report - "$wanted" 2>/dev/null |
      "$python" -c 'import json, sys; print(json.load(sys.stdin)["install"][0]["download_info"]["url"])' 2>/dev/null)
    case "$found" in
    *+cpu* | *%2Bcpu* | *macosx*)
      echo "Installing $wanted (CPU) and transformers for the tests ..." >&2
      "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        -r requirements-transformers.lock || echo "note: torch could not be installed; its tests are skipped" >&2
      ;;
    *) echo "note: pip offers no CPU build of $wanted here; the tests of the engine transformers are skipped" >&2 ;;
    esac
  fi
}

# Salt pins old releases of what others need: it gets an environment of its own.
salt() {
  if ! command -v salt-call >/dev/null && [ ! -x "$tools/salt/bin/salt-call" ]; then
    (python3.11 -m venv "$tools/salt" && "$tools/salt/bin/pip" -q install 'setuptools<81' salt) >/dev/null 2>&1 ||
      { rm -rf "$tools/salt"; echo "note: salt could not be installed; its tests are skipped" >&2; }
  fi
}

# Beside each other: most of it is waiting for downloads.
promtool &
torch &
salt &
wait
exit 0

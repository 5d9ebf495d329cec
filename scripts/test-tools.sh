#!/usr/bin/env bash
# Brings the real programs that the tests talk to. What cannot be had is said by the test that skips.
set -uo pipefail
packages=()
command -v chromium >/dev/null || packages+=(chromium)
fc-list 2>/dev/null | grep -i 'noto.*cjk' >/dev/null || packages+=(fonts-noto-cjk)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages+=(postgresql)
[ ${#packages[@]} -gt 0 ] || need_apt=no

apt() {
  if [ "$(id -u)" = 0 ]; then DEBIAN_FRONTEND=noninteractive apt-get "$@"
  elif sudo -n true 2>/dev/null; then sudo -n DEBIAN_FRONTEND=noninteractive apt-get "$@"
  else return 1; fi
}

if [ "${need_apt:-yes}" = yes ] && command -v apt-get >/dev/null; then
  echo "Installing for the tests: ${packages[*]} ..." >&2
  apt -qq update >/dev/null 2>&1
  apt -qq install -y --no-install-recommends "${packages[@]}" >/dev/null 2>&1 ||
    echo "note: could not install ${packages[*]}; the tests that need them are skipped" >&2
fi

# promtool comes inside Debian's prometheus package, which would also start a server: take the one program only.
tools=.venv/tools
if ! command -v promtool >/dev/null && [ ! -x "$tools/promtool" ] && command -v dpkg-deb >/dev/null; then
  mkdir -p "$tools/unpacked"
  (cd "$tools" && apt-get -qq download prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb unpacked &&
    mv unpacked/usr/bin/promtool promtool) || echo "note: promtool could not be had; its tests are skipped" >&2
  rm -rf "$tools/unpacked" "$tools"/prometheus_*.deb
fi
exit 0

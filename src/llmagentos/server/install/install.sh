#!/bin/sh
# Makes this machine a node of an LLMAgentOS server.
#
#   curl -fsSL http://SERVER/install.sh | sh -s -- --token TOKEN
#
# It may be run again: what is done already is left as it is. It needs Python 3.11 or newer and nothing else.
# This file holds no secret. All that it fetches, it fetches from the server with the join token (packages of others
# from the Python package index, by the hashes that the server names).
set -eu

SERVER='@SERVER@'
TOKEN=${LLMAGENTOS_JOIN_TOKEN:-}
TOKEN_FILE=
NAME=
PREFIX=
STATE=
CA=
INDEX=
PYTHON=
METRICS=127.0.0.1:0
SERVICE=auto
UNINSTALL=no
PURGE=no
UNIT=llmagentos-node.service
UNITS=/etc/systemd/system

usage() {
    cat <<'END'
usage: install.sh [options]
  --token TOKEN       join token, from `llmctl token create --kind join NAME` (better: LLMAGENTOS_JOIN_TOKEN or
  --token-file FILE   the token in a file: an argument can be seen by every user of this machine)
  --server URL        the server (default: where this script came from)
  --ca FILE           certificate of the CA that signed the server's
  --name NAME         name of the node (default: the host's name)
  --prefix DIR        where to install (default: /opt/llmagentos for root, else ~/.local/share/llmagentos)
  --state DIR         the node's state (default: /var/lib/llmagentos/node for root, else ~/.local/state/llmagentos/node)
  --index URL         Python package index for the packages of others (default: as pip is configured)
  --python PROGRAM    Python 3.11 or newer (default: the newest that is found)
  --metrics HOST:PORT where the node agent serves its metrics (default: a free port on loopback)
  --no-service        no systemd unit: a plain process, started now
  --uninstall         stop the node agent and remove what this script installed; the state stays
  --purge             with --uninstall: remove the state as well
END
}

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $1"
    [ $# -lt 2 ] || say "hint: $2"
    exit 1
}

options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --no-service) SERVICE=no; shift; continue ;;
            --uninstall) UNINSTALL=yes; shift; continue ;;
            --purge) PURGE=yes; shift; continue ;;
            -h | --help) usage; exit 0 ;;
        esac
        [ $# -ge 2 ] || die "$1 needs a value, or is unknown" "install.sh --help"
        case $1 in
            --token) TOKEN=$2 ;;
            --token-file) TOKEN_FILE=$2 ;;
            --server) SERVER=$2 ;;
            --ca) CA=$2 ;;
            --name) NAME=$2 ;;
            --prefix) PREFIX=$2 ;;
            --state) STATE=$2 ;;
            --index) INDEX=$2 ;;
            --python) PYTHON=$2 ;;
            --metrics) METRICS=$2 ;;
            *) die "unknown option $1" "install.sh --help" ;;
        esac
        shift 2
    done
}

plain() {
    for path in "$@"; do
        case $path in *[!A-Za-z0-9/._+-]*) die "$path: only letters, digits and /._+- are taken in paths" ;; esac
    done
}

defaults() {
    if [ "$(id -u)" = 0 ]; then
        PREFIX=${PREFIX:-/opt/llmagentos}
        STATE=${STATE:-/var/lib/llmagentos/node}
    else
        PREFIX=${PREFIX:-${XDG_DATA_HOME:-$HOME/.local/share}/llmagentos}
        STATE=${STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/llmagentos/node}
    fi
    case $PREFIX in /*) ;; *) PREFIX=$PWD/$PREFIX ;; esac
    case $STATE in /*) ;; *) STATE=$PWD/$STATE ;; esac
    case $CA in '' | /*) ;; *) CA=$PWD/$CA ;; esac
    # They stand in the unit's command: no blanks, and no % or $, which systemd fills in.
    plain "$PREFIX" "$STATE" "$CA"
    case $NAME in
        *[!A-Za-z0-9._-]* | [!A-Za-z0-9]*) die "a node cannot be called '$NAME'" "letters, digits, dot, dash, underscore" ;;
    esac
    case $METRICS in *[!A-Za-z0-9:.\[\]-]*) die "$METRICS is no HOST:PORT" ;; esac
    if [ "$SERVICE" = auto ]; then
        if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; then SERVICE=systemd; else SERVICE=no; fi
    fi
}

find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            PYTHON=$(command -v "$candidate")
            "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null && return
            say "note: $PYTHON has no venv or ensurepip (on Debian: apt-get install python3-venv)"
        fi
    done
    die "Python 3.11 to 3.13 with venv is needed, and was not found" \
        "install it (Debian 12: apt-get install python3 python3-venv), or name it with --python"
}

check_ca() {
    [ -n "$CA" ] || return 0
    "$PYTHON" -c 'import ssl, sys; ssl.create_default_context(cafile=sys.argv[1])' "$CA" 2>/dev/null && return
    [ -r "$CA" ] || die "$CA cannot be read" "--ca FILE: the certificate of the CA that signed the server's"
    die "$CA is no certificate" "--ca FILE: the certificate of the CA that signed the server's, as PEM"
}

read_token() {
    if [ -n "$TOKEN_FILE" ]; then
        TOKEN=$(cat -- "$TOKEN_FILE") || die "$TOKEN_FILE cannot be read"
    fi
    case $TOKEN in
        lao_join_*) ;;
        '') die "a join token is needed" "where you are logged in: llmctl token create --kind join NAME" ;;
        *) die "this is no join token" "llmctl token create --kind join NAME makes one; it begins with lao_join_" ;;
    esac
    case $TOKEN in *[!A-Za-z0-9_-]*) die "the join token holds characters that no token has" ;; esac
    umask 077
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 1' INT TERM HUP
    printf '%s\n' "$TOKEN" >"$WORK/token"
}

# fetch NAME: a file of the package from the server, into $WORK. The token is read from its file: arguments are public.
fetch() {
    "$PYTHON" - "$SERVER" "$1" "$WORK" "$CA" <<'END' || die "$1 could not be fetched from $SERVER"
import ssl, sys, urllib.error, urllib.request
server, name, work, ca = sys.argv[1:]
token = open(work + "/token").read().strip()
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None  # the token is for this server alone
context = ssl.create_default_context(cafile=ca or None)
if ca:
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
opener = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=context))
request = urllib.request.Request(f"{server}/api/v1/nodes/join/package/{name}", headers={"Authorization": f"Bearer {token}"})
try:
    with opener.open(request, timeout=120) as answer, open(f"{work}/{name}", "wb") as file:
        while piece := answer.read(1 << 16):
            file.write(piece)
except urllib.error.HTTPError as error:
    sys.exit(f"error: {error.code}: {error.read(2000).decode('utf-8', 'replace')}")
except OSError as error:
    sys.exit(f"error: {error}")
END
}

download() {
    fetch SHA256SUMS
    while read -r sum file; do
        case $file in *[!A-Za-z0-9._+-]* | '' | .*) die "the server names a file $file" ;; esac
        fetch "$file"
        case $file in *.whl) WHEEL=$file; DIGEST=$sum ;; esac
    done <"$WORK/SHA256SUMS"
    (cd "$WORK" && "$PYTHON" - <<'END') || die "what was fetched is damaged" "run this again"
import hashlib, sys
for line in open("SHA256SUMS"):
    wanted, name = line.split()
    if hashlib.sha256(open(name, "rb").read()).hexdigest() != wanted:
        sys.exit(f"error: {name} is not what SHA256SUMS says")
END
    version=${WHEEL#llmagentos-}
    ID=${version%%-*}-$(printf '%.12s' "$DIGEST")
}

install_version() {
    mkdir -p "$PREFIX/versions"
    chmod 755 "$PREFIX" "$PREFIX/versions"
    : >"$PREFIX/.llmagentos"
    target=$PREFIX/versions/$ID
    if [ -e "$target/.complete" ]; then
        say "$ID is installed already"
    else
        say "installing $ID into $target"
        rm -rf "$target"
        "$PYTHON" -m venv "$target" || die "no virtual environment could be made in $target"
        if [ -n "$INDEX" ]; then
            printf '[global]\nindex-url = %s\n' "$INDEX" >"$PREFIX/pip.conf"
            PIP_CONFIG_FILE=$PREFIX/pip.conf
            export PIP_CONFIG_FILE
        fi
        pip="$target/bin/python -m pip install --quiet --no-input --disable-pip-version-check"
        $pip --require-hashes -r "$WORK/requirements-node.lock" || die "the packages that it needs could not be installed"
        $pip --no-deps --no-index "$WORK/$WHEEL" || die "$WHEEL could not be installed"
        chmod -R go+rX "$target"
        date +%s >"$target/.complete"
    fi
    cp "$WORK/launch.py" "$PREFIX/.launch.py"
    mv -f "$PREFIX/.launch.py" "$PREFIX/launch.py"
    ln -sfn "versions/$ID" "$PREFIX/.current.new"
    "$PYTHON" -c 'import os, sys; os.replace(sys.argv[1], sys.argv[2])' "$PREFIX/.current.new" "$PREFIX/current"
    rm -f "$PREFIX/trial.json" "$PREFIX/outcome.json"
}

agent_arguments() {
    set -- --state "$STATE" --server "$SERVER" --metrics "$METRICS"
    [ -z "$CA" ] || set -- "$@" --ca "$CA"
    printf '%s\n' "$@"
}

join() {
    if [ -e "$STATE/identity.json" ]; then
        say "this machine is a node already (its identity is in $STATE)"
        return
    fi
    mkdir -p "$STATE"
    chmod 700 "$STATE"
    set -- --join-only --join-token-file "$WORK/token"
    [ -z "$NAME" ] || set -- "$@" --name "$NAME"
    while IFS= read -r argument; do set -- "$@" "$argument"; done <<END
$(agent_arguments)
END
    "$PREFIX/current/bin/python" -m llmagentos.fleet.node "$@" </dev/null || die "this machine could not join $SERVER"
}

write_unit() {
    command="$PYTHON $PREFIX/launch.py $PREFIX $(agent_arguments | tr '\n' ' ')"
    cat >"$PREFIX/$UNIT" <<END
[Unit]
Description=LLMAgentOS node agent
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart=$command
Restart=always
RestartSec=5
# A playbook that runs goes on while the node agent is stopped or upgraded: only the agent itself is signalled.
KillMode=process
TimeoutStopSec=20

[Install]
WantedBy=multi-user.target
END
}

start() {
    write_unit
    if [ "$SERVICE" = systemd ]; then
        stop_process # one that --no-service started: two node agents of one node refuse each other
        cp "$PREFIX/$UNIT" "$UNITS/$UNIT"
        chmod 644 "$UNITS/$UNIT"
        systemctl daemon-reload
        systemctl enable --quiet "$UNIT"
        systemctl restart "$UNIT"
        say "the node agent runs: systemctl status $UNIT"
        return
    fi
    remove_unit
    stop_process
    set --
    while IFS= read -r argument; do set -- "$@" "$argument"; done <<END
$(agent_arguments)
END
    "$PYTHON" - "$PYTHON" "$PREFIX" "$@" <<'END'
import os, subprocess, sys
python, prefix, *arguments = sys.argv[1:]
with open(os.path.join(prefix, "launch.log"), "ab") as log:
    process = subprocess.Popen(
        [python, os.path.join(prefix, "launch.py"), prefix, *arguments],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
    )
with open(os.path.join(prefix, "launch.pid"), "w") as file:
    file.write(str(process.pid))
END
    say "the node agent runs as process $(cat "$PREFIX/launch.pid"); its log is $PREFIX/launch.log"
    say "to have it started with the machine, run $PREFIX/$UNIT's ExecStart at boot"
}

# Only a unit that runs our launcher is removed.
remove_unit() {
    if [ -e "$UNITS/$UNIT" ] && grep -qF "$PREFIX/launch.py" "$UNITS/$UNIT"; then
        systemctl disable --now --quiet "$UNIT" || true
        rm -f "$UNITS/$UNIT"
        systemctl daemon-reload || true
    fi
}

# Only a process that is our launcher is ended: process ids are used again.
stop_process() {
    [ -e "$PREFIX/launch.pid" ] || return 0
    pid=$(cat "$PREFIX/launch.pid")
    # Not by ps, which not every machine has.
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$PREFIX/launch.py"; then
        kill "$pid"
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 1
        done
    fi
    rm -f "$PREFIX/launch.pid"
}

uninstall() {
    remove_unit
    stop_process
    if [ -e "$PREFIX/.llmagentos" ]; then
        rm -rf "$PREFIX"
        say "$PREFIX is removed"
    else
        say "nothing of ours is in $PREFIX"
    fi
    if [ "$PURGE" = yes ] && [ -e "$STATE/identity.json" ]; then
        rm -rf "$STATE"
        say "$STATE is removed"
    elif [ -e "$STATE/identity.json" ]; then
        say "the node's state is still in $STATE (--purge removes it)"
    fi
    say "on the server: llmctl node remove NAME"
}

main() {
    options "$@"
    defaults
    if [ "$UNINSTALL" = yes ]; then
        uninstall
        return
    fi
    case $SERVER in
        http://* | https://*) SERVER=${SERVER%/} ;;
        *) die "where is the server?" "--server https://HOST:7080" ;;
    esac
    case $SERVER in *[!A-Za-z0-9:/.\[\]-]*) die "$SERVER is no address of a server" ;; esac
    find_python
    plain "$PYTHON"
    check_ca
    read_token
    download
    install_version
    join
    start
}

main "$@"

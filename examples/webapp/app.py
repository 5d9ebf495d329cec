"""A web application that counts its visits in PostgreSQL, by wsgiref and psql: nothing to install.

`app.py PORT`; the database and its password come by libpq's variables (PGHOST, PGPASSFILE ...). What a
release reads, writes and says is in its `page.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import page  # of this release, beside this file

RELEASE = Path(__file__).parent.name
NODE = os.environ["NODE"]


class Server(ThreadingMixIn, WSGIServer):
    """A request in a thread each."""

    daemon_threads = True


def query(sql: str) -> list[str]:
    """The columns of the last row; `:'node'` in `sql` is this node."""
    argv = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-v", f"node={NODE}"]
    done = subprocess.run(argv, input=sql, capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout.strip().split("|")


def answer(path: str) -> tuple[HTTPStatus, str]:
    """Status and body."""
    if path == "/release":
        return HTTPStatus.OK, json.dumps({"release": RELEASE, "node": NODE})
    if path not in ("/", "/health"):
        return HTTPStatus.NOT_FOUND, json.dumps({"error": f"there is no {path}"})
    try:
        if path == "/":
            query(page.VISIT)
        return HTTPStatus.OK, json.dumps({"release": RELEASE, "page": page.TEXT.format(*query(page.READ))})
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return HTTPStatus.SERVICE_UNAVAILABLE, json.dumps({"error": str(error)})


def application(
    environ: dict[str, str], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    """PEP 3333."""
    status, body = answer(environ["PATH_INFO"])
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [body.encode()]


if __name__ == "__main__":
    make_server("", int(sys.argv[1]), application, server_class=Server).serve_forever()

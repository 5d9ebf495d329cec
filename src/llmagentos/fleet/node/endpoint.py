"""`/metrics` of the node agent: on loopback, for whoever can read the token in the state directory."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llmagentos.core import metrics
from llmagentos.core.errors import ConfigError
from llmagentos.core.files import write_whole
from llmagentos.fleet.node.collect import readings
from llmagentos.fleet.node.state import NodeDirectory

SLOW_S = 5.0
"""A client that takes longer to send its request is cut off."""


@contextmanager
def serving(directory: NodeDirectory, address: str) -> Iterator[str]:
    """Serve on `address` (port 0: any free one) inside the block; gives the URL. Raises `ConfigError`.

    It runs on threads of its own, so a scrape cannot hold up a job. The token is made once and kept.
    """
    token = _token(directory)
    try:
        host, _, port = address.rpartition(":")
        server = _Server((host.strip("[]") or "127.0.0.1", int(port)), _Handler)
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError(f"the node agent cannot serve its metrics on {address!r}: {error}") from None
    server.token = token
    url = f"http://{server.server_address[0]!s}:{server.server_address[1]}/metrics"
    write_whole(directory.endpoint, url.encode() + b"\n")
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield url
    finally:
        directory.endpoint.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join()


def _token(directory: NodeDirectory) -> str:
    try:
        return directory.metrics_token.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        write_whole(directory.metrics_token, token.encode() + b"\n")
        return token


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    token = ""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SLOW_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            self._answer(401, "text/plain", b"the token is in metrics.token in the node's state directory\n")
        elif self.path != "/metrics":
            self._answer(404, "text/plain", b"only /metrics is here\n")
        else:
            self._answer(200, metrics.CONTENT_TYPE, metrics.render() + readings.render().encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "llmagentos"

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""

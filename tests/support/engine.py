"""An OpenAI-compatible engine whose every word waits for the test."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 60.0


class ScriptedEngine:
    """Answers every chat with `words`; after the first `at_once` of them, which may grow, waits for `release`."""

    def __init__(self, words: list[str], *, at_once: int) -> None:
        self.words = words
        self.at_once = at_once
        self.requests: list[dict[str, Any]] = []
        self._go = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def hold(self, *, at_once: int) -> None:
        """From now on say only so many words before `release`."""
        self.at_once = at_once
        self._go.clear()

    def release(self) -> None:
        """Say the rest."""
        self._go.set()

    @contextmanager
    def running(self) -> Iterator[ScriptedEngine]:
        """Listen."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._go.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)

    def chunks(self) -> Iterator[bytes]:
        """The answer as server-sent events."""
        for number, word in enumerate(self.words):
            deadline = time.monotonic() + PATIENCE_S
            while number >= self.at_once and time.monotonic() < deadline and not self._go.wait(0.02):
                continue
            yield _chunk([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        yield _chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        yield _chunk([], usage={"prompt_tokens": 128, "completion_tokens": len(self.words), "total_tokens": 140})
        yield b"data: [DONE]\n\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send("application/json", b'{"object": "list", "data": [{"id": "scripted", "object": "model"}]}')

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                engine.requests.append(json.loads(self.rfile.read(length)))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                with suppress(ConnectionError):  # the run was stopped
                    for chunk in engine.chunks():
                        self.wfile.write(chunk)
                        self.wfile.flush()

            def _send(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what went wrong."""

        return Handler


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": "scripted", "choices": choices}
    return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"

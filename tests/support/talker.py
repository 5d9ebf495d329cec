"""An OpenAI-compatible engine that says what a function of the request says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Say = Callable[[Request], str]


class Talker:
    """`say(request)` is the answer. Chats are remembered in `requests`; `endless` ones go on until cut off."""

    def __init__(self, say: Say, *, endless: bool = False) -> None:
        self.say = say
        self.endless = endless
        self.requests: list[Request] = []
        self.cut_off = 0
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def config(self) -> str:
        """`llmagentos.yaml` with this engine as its chat model and its embedding model."""
        return (
            "models:\n"
            f"  talker: {{engine: openai, url: '{self.url}', aliases: [default], tools: schema}}\n"
            f"  near: {{engine: openai, url: '{self.url}', kind: embedding}}\n"
        )

    @contextmanager
    def running(self) -> Iterator[Talker]:
        """Listen."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)

    def _pieces(self, text: str) -> Iterator[str]:
        words = text.split(" ")
        yield words[0]
        for word in words[1:]:
            yield f" {word}"
        while self.endless and not self._closing.is_set():
            time.sleep(0.01)
            yield " more"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        talker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send({"object": "list", "data": [{"id": "talker", "object": "model"}]})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.endswith("/embeddings"):
                    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
                    data = [
                        {"object": "embedding", "index": i, "embedding": _letters(text)} for i, text in enumerate(texts)
                    ]
                    usage = {"prompt_tokens": 1, "total_tokens": 1}
                    self._send({"object": "list", "model": "near", "data": data, "usage": usage})
                    return
                talker.requests.append(request)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                count = 0
                try:
                    for piece in talker._pieces(talker.say(request)):
                        count += 1
                        self._chunk([{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
                    self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
                    self._chunk([], usage={"prompt_tokens": 11, "completion_tokens": count, "total_tokens": 11 + count})
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    talker.cut_off += 1

            def _chunk(self, choices: list[Any], **more: Any) -> None:
                chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "talker"}
                self.wfile.write(b"data: " + json.dumps(chunk | {"choices": choices} | more).encode() + b"\n\n")
                self.wfile.flush()

            def _send(self, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what went wrong."""

        return Handler


def _letters(text: str) -> list[float]:
    """An embedding by the letters of a text: near for texts with the same words."""
    words = text.lower().split()
    return [float(sum(word.count(chr(97 + i)) for word in words)) for i in range(26)]

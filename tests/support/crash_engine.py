"""An engine as a process of its own, to be killed: `python -m support.crash_engine PORT NOTES`. Speaks OpenAI's API.

It notes every call, and tells what a call takes before it answers, so that one that is cut off costs as much.
What it says depends on the prompt alone, so a call that is made again is answered alike: three tool calls at
once, then two more, then the answer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAUSE_S = 0.02
TOKENS_IN, TOKENS_OUT = 11, 5
TOKENS = TOKENS_IN + TOKENS_OUT
"""Of every call."""


def answer_to(request: str) -> str:
    """What a run that was asked `request` answers."""
    return f"All done for {request}."


def say(request: dict[str, Any]) -> dict[str, Any]:
    """The delta of the whole reply."""
    asked = next(message["content"] for message in request["messages"] if message["role"] == "user")
    results = sum(message["role"] == "tool" for message in request["messages"])
    names = [tool["function"]["name"] for tool in request.get("tools", ())]
    look, pay = (next((name for name in names if name.endswith(word)), word) for word in ("look", "pay"))
    if results == 0:
        return _calls((look, f"{asked}-1"), (pay, f"{asked}-2"), (look, f"{asked}-3"))
    if results == 3:
        return _calls((pay, f"{asked}-4"), (look, f"{asked}-5"))
    return {"content": answer_to(asked)}


def _calls(*wanted: tuple[str, str]) -> dict[str, Any]:
    calls = [
        {
            "index": i,
            "id": f"c{i}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps({"item": item})},
        }
        for i, (name, item) in enumerate(wanted)
    ]
    return {"tool_calls": calls}


class Handler(BaseHTTPRequestHandler):
    """One call."""

    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "crash", "object": "model"}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(sys.argv[2], "a") as notes:
            notes.write("call\n")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for chunk in _chunks(say(request)):
                time.sleep(PAUSE_S)
                self.wfile.write(b"data: " + chunk + b"\n\n")
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _chunks(delta: dict[str, Any]) -> Iterator[bytes]:
    head = {"id": "c", "object": "chat.completion.chunk", "model": "crash"}
    usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT, "total_tokens": TOKENS}
    yield json.dumps(head | {"choices": [], "usage": usage}).encode()
    for part, finish in ((delta, None), ({}, "stop")):
        yield json.dumps(head | {"choices": [{"index": 0, "delta": part, "finish_reason": finish}]}).encode()


if __name__ == "__main__":
    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

"""A scripted engine at the transport seam: a real HTTP server that speaks OpenAI's API and does as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from support.listening import listening


@dataclass(frozen=True)
class Refuse:
    """Answer with this status and body, and nothing else."""

    status: int
    body: dict[str, Any] | str
    headers: dict[str, str] = field(default_factory=dict)


class Hang:
    """Send nothing more until the caller hangs up."""


class Drop:
    """End the connection in the middle."""


class End:
    """End the body, though not the answer: as a connection looks that has no other end than its own."""


@dataclass(frozen=True)
class Wait:
    """Go on when the event is set."""

    event: asyncio.Event


@dataclass(frozen=True)
class Raw:
    """Send this text as it is in place of a chunk."""

    text: str


Step = str | dict[str, Any] | Hang | Drop | End | Wait | Raw
Script = Callable[[dict[str, Any]], Refuse | Sequence[Step]]
"""From the request to what is sent: text and deltas (dicts) as chunks, the rest as above."""


class ScriptedEngine:
    """What it was asked, how many callers it has, and how many hung up."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.active = 0
        self.hung_up = 0
        self.url = ""
        self.extra: dict[str, str] = {}
        """Headers of its answers."""
        self.pages: dict[str, str | Refuse] = {"/v1/models": '{"object": "list", "data": []}'}
        """What its other routes answer to GET; 404 for all that are not there."""
        self.asked: list[str] = []
        """Paths that were got."""
        self._answers: int | None = None

    def leave_after(self, answers: int) -> None:
        """End each connection when one request more than so many has come on it, unanswered."""
        self._answers = answers

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            for answered in count():
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if self._answers is not None and answered >= self._answers:
                    return
                self.headers.append(headers)
                method, path, _ = head[0].split()
                if method == "GET":
                    self._page(path, writer)
                else:
                    await self._answer(path, body, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _page(self, path: str, writer: asyncio.StreamWriter) -> None:
        self.asked.append(path)
        page = self.pages.get(path, Refuse(404, "not here"))
        if isinstance(page, Refuse):
            _send(writer, page.status, page.body, page.headers)
        else:
            _send(writer, 200, page)

    async def _answer(self, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(body)
        self.requests.append(request)
        steps = self.script(request)
        if isinstance(steps, Refuse):
            _send(writer, steps.status, steps.body, steps.headers)
        elif path.endswith("/embeddings"):
            for step in steps:
                if isinstance(step, Wait):
                    await step.event.wait()
            texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
            data = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(texts)]
            _send(writer, 200, {"data": data[::-1], "usage": {"prompt_tokens": 7, "total_tokens": 7}})
        else:
            self.active += 1
            try:
                await self._stream(steps, reader, writer)
            finally:
                self.active -= 1

    async def _stream(self, steps: Sequence[Step], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")
        writer.write("".join(f"{name}: {value}\r\n" for name, value in self.extra.items()).encode() + b"\r\n")
        for step in steps:
            if isinstance(step, Hang):
                await writer.drain()
                await reader.read(1)
                self.hung_up += 1
                raise ConnectionResetError
            if isinstance(step, Wait):
                await writer.drain()
                await step.event.wait()
                continue
            if isinstance(step, Drop):
                await writer.drain()
                raise ConnectionResetError
            if isinstance(step, End):
                writer.write(b"0\r\n\r\n")
                return
            _chunk(writer, step.text if isinstance(step, Raw) else _event(step))
        _chunk(writer, _event({}, finish="stop"))
        usage = {"prompt_tokens": 11, "completion_tokens": len(steps), "total_tokens": 11 + len(steps)}
        _chunk(writer, f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")


def _event(step: str | dict[str, Any], finish: str | None = None) -> str:
    delta = {"content": step} if isinstance(step, str) else step
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'theirs', 'model': '/their/file', 'choices': [choice], 'extra': 1})}\n\n"


def _chunk(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _send(
    writer: asyncio.StreamWriter, status: int, body: dict[str, Any] | str, headers: dict[str, str] | None = None
) -> None:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(data)}"]
    head += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)


@asynccontextmanager
async def scripted_engine(script: Script) -> AsyncIterator[ScriptedEngine]:
    """A scripted engine that listens at `.url` for the block."""
    engine = ScriptedEngine(script)
    async with listening(engine.handle) as address:
        engine.url = f"{address}/v1"
        yield engine

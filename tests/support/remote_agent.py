"""A remote A2A agent at the transport seam, which begins a task for every message, also for one that it knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.listening import listening

CARD = {
    "name": "Stranger",
    "description": "Works for a while.",
    "version": "1",
    "capabilities": {},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [],
}


class RemoteAgent:
    """Its tasks end when `done` is set; `begun` are the texts of the messages that it got."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done = asyncio.Event()
        self.looks = 0
        self.mute = False
        """Messages get no answer."""
        self.away = 0
        """So many requests for a task end in a lost connection."""
        self.gone = False
        """Every request ends in a lost connection, and counts as `refused`."""
        self.refused = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RemoteAgent]:
        """Listen at `url` for the block."""
        async with listening(self._serve) as self.url:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
            answer = await self._answer(json.loads(await reader.readexactly(length)) if length else None)
            if answer is not None:
                body = json.dumps(answer).encode()
                lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", "Connection: close"]
                writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, asked: dict[str, Any] | None) -> dict[str, Any] | None:
        if self.gone:
            self.refused += 1
            return None
        if asked is None:
            here = {"url": f"{self.url}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
            return {**CARD, "supportedInterfaces": [here]}
        if asked["method"] == "SendMessage":
            self.begun.append(asked["params"]["message"]["parts"][0]["text"])
            if self.mute:
                await asyncio.sleep(3600)
            result: dict[str, Any] = {"task": self._task(f"task-{len(self.begun)}")}
        else:
            self.looks += 1
            if self.away > 0:
                self.away -= 1
                return None
            result = self._task(asked["params"]["id"])
        return {"jsonrpc": "2.0", "id": asked["id"], "result": result}

    def _task(self, name: str) -> dict[str, Any]:
        task: dict[str, Any] = {"id": name, "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}
        if self.done.is_set():
            task["status"] = {"state": "TASK_STATE_COMPLETED"}
            task["artifacts"] = [{"artifactId": "a", "parts": [{"text": f"{name} is done"}]}]
        return task

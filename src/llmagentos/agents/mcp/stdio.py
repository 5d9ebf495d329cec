"""A child process as an MCP server: newline-delimited JSON-RPC over its pipes (MCP 2025-11-25, "stdio").

Beside what the package's own transport does, lines are bounded (a server that never ends its line must not fill
our memory), the child gets a minimal environment, what it says on stderr is kept for errors, and the kernel ends
it when our process is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from llmagentos.core import log
from llmagentos.core.lifecycle import die_with, reap

MAX_LINE = 8 * 1024 * 1024
"""Bytes of one message."""
_STDERR_LINE = 8 * 1024
_STDERR_KEPT = 20
_GRACE_S = 2.0

_log = log.get(__name__)

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


class Child:
    """One MCP server as a child process; `stderr` are its last lines there, `ended` when it is gone."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], workdir: str) -> None:
        self._name = name
        self._command = list(command)
        self._env = dict(env)
        self._workdir = workdir
        self.stderr: deque[str] = deque(maxlen=_STDERR_KEPT)
        self.ended = asyncio.Event()
        self.pid: int | None = None

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Start it; at the end its stdin is closed, then it is told to go, then made to. Raises `OSError`."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
            cwd=self._workdir,
            limit=MAX_LINE,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), with_signal=signal.SIGKILL),
        )
        self.pid = process.pid
        to_us, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        sent, from_us = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as group, to_us, received, sent, from_us:
                group.start_soon(self._read, process, to_us)
                group.start_soon(self._write, process, from_us)
                group.start_soon(self._listen, process)
                try:
                    yield received, sent
                finally:
                    group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            self.ended.set()

    async def _read(self, process: Any, to_us: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        try:
            async with to_us:
                while line := await process.stdout.readline():
                    await to_us.send(_message(line))
        except ValueError:  # the stream's limit
            self.stderr.append(f"(a message was longer than {MAX_LINE} bytes)")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            _log.debug("nobody reads any more", server=self._name)
        finally:
            self.ended.set()

    async def _write(self, process: Any, from_us: MemoryObjectReceiveStream[SessionMessage]) -> None:
        try:
            async with from_us:
                async for item in from_us:
                    text: str = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    process.stdin.write(text.encode() + b"\n")
                    await process.stdin.drain()
        except (OSError, anyio.ClosedResourceError) as error:
            _log.debug("cannot be written to", server=self._name, error=str(error))
            self.ended.set()

    async def _listen(self, process: Any) -> None:
        """Keep the last of what it says on stderr: nobody else reads it, and a full pipe would stop it."""
        rest = b""
        while chunk := await process.stderr.read(_STDERR_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in [*lines, *([rest] if len(rest) > _STDERR_LINE else [])]:
                self._said(line)
            rest = b"" if len(rest) > _STDERR_LINE else rest
        if rest:
            self._said(rest)

    def _said(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self.stderr.append(text[:_STDERR_LINE])
            _log.debug("an MCP server says", server=self._name, line=text[:_STDERR_LINE])


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to go by closing its stdin, then its whole process group by signals."""
    if process.stdin is not None:
        process.stdin.close()
    for with_signal in (None, signal.SIGTERM, signal.SIGKILL):
        if with_signal is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, with_signal)
        await reap(process, within=_GRACE_S)
        if process.returncode is not None:
            break
    with suppress(ProcessLookupError):  # what it has started and left behind
        os.killpg(process.pid, signal.SIGKILL)

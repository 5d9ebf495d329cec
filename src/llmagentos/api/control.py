"""Control over runs on the wire: kill, pause, resume, nice; and runs whose work is a program of somebody else's."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.agents import AgentName, Priority
from llmagentos.api.client import ApiClient
from llmagentos.api.runs import Run, RunId


class Pause(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Models stop at once. With `now` a tool's call under way is stopped too, not only those that follow."""

    now: bool = False
    reason: Annotated[str, Meta(max_length=500)] | None = None


class NewPriority(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another nice value."""

    priority: Priority


class NewProgram(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A program that the caller starts and whose calls to models are to be one run."""

    agent: AgentName
    """As whose work it counts; there need not be a definition of that name."""
    command: Annotated[list[Annotated[str, Meta(max_length=10_000)]], Meta(min_length=1, max_length=1000)]
    holder: Annotated[str, Meta(min_length=1, max_length=100)]
    priority: Priority | None = None
    parent: RunId | None = None


class Program(msgspec.Struct, frozen=True):
    """The run of a program. `token` is good for calls to `/v1` in this run, while the lease is renewed."""

    run: str
    fence: int
    lease_s: float
    token: str


class Exit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The program ended with `code` (minus a signal's number)."""

    fence: int
    code: Annotated[int, Meta(ge=-255, le=255)]


async def kill(client: ApiClient, run: str) -> Run:
    """Stop a run and those that it asked for. Raises `Conflict` when it has already ended."""
    return await client.post(f"/api/v1/runs/{quote(run, safe='')}/kill", None, Run)


async def pause(client: ApiClient, run: str, *, now: bool = False, reason: str | None = None) -> Run:
    """Have a run's models stop, and no further call start. Raises `Conflict` when it has already ended."""
    return await client.post(f"/api/v1/runs/{quote(run, safe='')}/pause", Pause(now, reason), Run)


async def resume(client: ApiClient, run: str) -> Run:
    """Let a paused run go on. Raises `Conflict` when it is not paused."""
    return await client.post(f"/api/v1/runs/{quote(run, safe='')}/resume", None, Run)


async def renice(client: ApiClient, run: str, priority: Priority) -> Run:
    """Give a run another nice value. Raises `Conflict` when it has already ended."""
    return await client.put(f"/api/v1/runs/{quote(run, safe='')}/priority", NewPriority(priority), Run)


async def begin(client: ApiClient, request: NewProgram) -> Program:
    """A run for a program that is about to be started."""
    return await client.post("/api/v1/programs", request, Program)


async def end(client: ApiClient, run: str, request: Exit) -> Run:
    """The program has ended. Raises `Conflict` when its run has, or when the lease is lost."""
    return await client.post(f"/api/v1/programs/{quote(run, safe='')}/exit", request, Run)

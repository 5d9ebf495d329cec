"""A host outlives whatever its runs do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from llmagentos.agents import host
from llmagentos.agents.host import AgentHost, ToolsOf
from llmagentos.agents.states import RunPaused
from llmagentos.agents.tools import Toolset
from llmagentos.api.agents import AgentSpec, Limits
from llmagentos.api.hosting import Claim
from llmagentos.api.runs import Answered, Claimed, Created, Data, Failed, RunEvent
from llmagentos.core.errors import TooLarge, Unauthenticated, Unavailable
from llmagentos.core.lifecycle import Backoff
from support.server import eventually
from unit.agents.conftest import Scripted

SPEC = AgentSpec(name="a", model="m", tools_by="native")


class Server:
    """Hands out runs; refuses what the first of them adds."""

    def __init__(self, refusal: Exception, *, run: str | None = None, claims: int = 1, spec: AgentSpec = SPEC) -> None:
        self.refusal = refusal
        self.left = ["r1", "r2"] if run is None else [run]
        self.claims = claims
        self.spec = spec
        self.added: dict[str, list[Data]] = {run: [] for run in self.left}
        self.released: list[str] = []
        self.done = asyncio.Event()

    async def claim(self, wait: float) -> Claim | None:
        if not self.left:
            await asyncio.sleep(wait)
            return None
        created = Created("a", 1, "m", "Go", "admin:me")
        claims = [RunEvent(1 + fence, 1.0, Claimed("h", fence)) for fence in range(1, self.claims + 1)]
        return Claim(self.left.pop(0), self.claims, 10.0, self.spec, [RunEvent(1, 1.0, created), *claims])

    async def append(self, run: str, fence: int, after: int, data: Sequence[Data]) -> list[RunEvent]:
        if run == "r1":
            raise self.refusal
        self.added[run] += data
        if any(isinstance(item, (Answered, Failed)) for item in data):
            self.done.set()
        return [RunEvent(after + number, 1.0, item) for number, item in enumerate(data, 1)]

    async def renew(self, run: str, fence: int) -> float:
        return 10.0

    async def release(self, run: str, fence: int) -> None:
        self.released.append(run)


@pytest.mark.anyio
@pytest.mark.parametrize("refusal", [TooLarge("over 2 MiB"), Unauthenticated("revoked"), RuntimeError("odd")])
async def test_a_server_that_takes_nothing_of_one_run_does_not_end_the_others(refusal: Exception) -> None:
    server = Server(refusal)

    async def tools(_: Claim) -> Toolset:
        return Toolset((), None)

    serving = asyncio.create_task(AgentHost(server, Scripted(["fine"]), tools).serve())
    async with asyncio.timeout(20):
        await asyncio.wait([serving, asyncio.create_task(server.done.wait())], return_when="FIRST_COMPLETED")
    assert not serving.done()
    assert [type(item).__name__ for item in server.added["r2"]][-1] == "Answered"
    assert server.released == ["r1"]
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def answered(server: Server, tools: ToolsOf) -> list[Data]:
    """What a host adds to the log of the one run that there is."""
    serving = asyncio.create_task(AgentHost(server, Scripted(["fine"]), tools).serve())
    async with asyncio.timeout(40):
        await server.done.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    (added,) = server.added.values()
    return added


@pytest.mark.anyio
async def test_a_run_that_was_begun_waits_for_tools_that_are_away() -> None:
    away = [Unavailable("restarts"), Unavailable("restarts")]

    async def tools(_: Claim) -> Toolset:
        if away:
            raise away.pop()
        return Toolset((), None)

    server = Server(RuntimeError("unused"), run="r0", claims=2)
    assert [type(item).__name__ for item in await answered(server, tools)][-1] == "Answered"
    assert not away


@pytest.mark.anyio
async def test_a_run_that_is_paused_as_its_tools_are_looked_for_is_let_go_and_not_failed() -> None:
    server = Server(RuntimeError("unused"), run="r0", claims=2)

    async def tools(_: Claim) -> Toolset:
        raise RunPaused("the run r0 is paused")

    serving = asyncio.create_task(AgentHost(server, Scripted([]), tools).serve())
    await eventually(lambda: server.released)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert (server.released, server.added) == (["r0"], {"r0": []})


@pytest.mark.anyio
async def test_runs_that_wait_for_tools_leave_their_places_to_others() -> None:
    server = Server(RuntimeError("unused"), run="r0", claims=2)
    server.left, server.added = ["r3", "r2"], {"r3": [], "r2": []}

    async def tools(claim: Claim) -> Toolset:
        if claim.run == "r3" and not server.added["r2"]:
            raise Unavailable("restarts")
        return Toolset((), None)

    serving = asyncio.create_task(AgentHost(server, Scripted(["fine", "fine"]), tools, concurrency=1).serve())
    async with asyncio.timeout(40):
        while not all(any(isinstance(item, Answered) for item in added) for added in server.added.values()):
            await asyncio.sleep(0.01)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.anyio
@pytest.mark.parametrize("claims", [1, 2])
async def test_a_run_fails_when_its_tools_are_away_at_first_or_for_too_long(
    claims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_LEAST_S", 0.0)
    monkeypatch.setattr(host, "Backoff", lambda **_: Backoff(first=0.05, most=0.4))
    tries = 0

    async def tools(_: Claim) -> Toolset:
        nonlocal tries
        tries += 1
        raise Unavailable("restarts")

    server = Server(RuntimeError("unused"), run="r0", claims=claims, spec=replace(SPEC, limits=Limits(timeout=2.0)))
    (failed,) = await answered(server, tools)
    assert isinstance(failed, Failed)
    assert (failed.error, failed.code) == ("a tool of a is not there: restarts", "unavailable")
    assert (tries > 1) == (claims > 1)


@pytest.mark.anyio
async def test_a_run_fails_when_nobody_says_what_its_tools_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_LEAST_S", 0.0)

    async def tools(_: Claim) -> Toolset:
        return await asyncio.Event().wait() or Toolset((), None)

    server = Server(RuntimeError("unused"), run="r0", spec=replace(SPEC, limits=Limits(timeout=1.0)))
    (failed,) = await answered(server, tools)
    assert isinstance(failed, Failed)
    assert failed.code == "deadline_exceeded"


@pytest.mark.anyio
async def test_a_defect_fails_its_run_in_a_few_words() -> None:
    server = Server(RuntimeError("unused"), run="r2")

    async def tools(_: Claim) -> Toolset:
        raise RuntimeError("x" * 5_000)

    serving = asyncio.create_task(AgentHost(server, Scripted([]), tools).serve())
    async with asyncio.timeout(20):
        await server.done.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    (failed,) = server.added["r2"]
    assert isinstance(failed, Failed)
    assert len(failed.error) < 2_100

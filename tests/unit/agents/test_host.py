"""A host outlives whatever its runs do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from llmagentos.agents.host import AgentHost
from llmagentos.agents.tools import Toolset
from llmagentos.api.agents import AgentSpec
from llmagentos.api.hosting import Claim
from llmagentos.api.runs import Answered, Claimed, Created, Data, Failed, RunEvent
from llmagentos.core.errors import TooLarge, Unauthenticated
from unit.agents.conftest import Scripted

SPEC = AgentSpec(name="a", model="m", tools_by="native")


class Server:
    """Hands out runs; refuses what the first of them adds."""

    def __init__(self, refusal: Exception, *, runs: int = 2) -> None:
        self.refusal = refusal
        self.left = [f"r{number}" for number in range(1, runs + 1)]
        self.added: dict[str, list[Data]] = {run: [] for run in self.left}
        self.released: list[str] = []
        self.done = asyncio.Event()

    async def claim(self, wait: float) -> Claim | None:
        if not self.left:
            await asyncio.sleep(wait)
            return None
        created = Created("a", 1, "m", "Go", "admin:me")
        events = [RunEvent(1, 1.0, created), RunEvent(2, 1.0, Claimed("h", 1))]
        return Claim(self.left.pop(0), 1, 10.0, SPEC, events)

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


@pytest.mark.anyio
async def test_a_defect_fails_its_run_in_a_few_words() -> None:
    server = Server(RuntimeError("unused"), runs=2)
    server.left = ["r2"]

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

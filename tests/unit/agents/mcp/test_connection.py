"""A connection to an MCP server: made when needed, shared, made again after a pause, its tools kept and renewed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.agents.mcp import connection
from llmagentos.agents.mcp.connection import FRESH_S, Connection
from llmagentos.core.clock import ManualClock
from llmagentos.core.config.outside import McpServer
from llmagentos.core.errors import DeadlineExceeded, Unavailable
from llmagentos.core.lifecycle import Backoff

SPEC = McpServer(["files"], connect_s=0.5)


class FakeSession:
    """The transport seam: a server with one tool."""

    agreed = ("2026-07-28", "fake 1")

    def __init__(self) -> None:
        self.ended, self.changed = asyncio.Event(), asyncio.Event()
        self.listed = 0
        self.slow = False

    async def tools(self, timeout: float) -> list[Mapping[str, Any]]:
        if self.slow:
            raise DeadlineExceeded("slow")
        self.listed += 1
        return [{"name": f"tool{self.listed}", "inputSchema": {"type": "object"}}]

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        return [tool, dict(arguments), timeout]


class Fake:
    """Sessions that were opened; `fail` has opening fail, `hang` never end."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = ManualClock()
        self.sessions: list[FakeSession] = []
        self.closed = 0
        self.fail = self.hang = False
        self.connection = Connection("files", SPEC, "config", workdir=tmp_path / "w", clock=self.clock, open_=self.open)

    @asynccontextmanager
    async def open(self, name: str, spec: McpServer, env: Mapping[str, str], workdir: str) -> AsyncIterator[Any]:
        if self.hang:
            await asyncio.Event().wait()
        if self.fail:
            raise OSError("no such program")
        self.sessions.append(FakeSession())
        try:
            yield self.sessions[-1]
        finally:
            self.closed += 1


def test_one_connection_serves_all_and_its_tools_are_remembered(tmp_path: Path) -> None:
    async def main() -> None:
        fake = Fake(tmp_path)
        assert fake.connection.info().state == "idle"
        listings = await asyncio.gather(*(fake.connection.tools() for _ in range(5)))
        assert [[tool.name for tool in one.tools] for one in listings] == [["tool1"]] * 5
        assert len(fake.sessions) == 1
        assert await fake.connection.call("tool1", {"a": 1}, 1000.0) == ["tool1", {"a": 1}, SPEC.timeout_s]
        info = fake.connection.info()
        assert (info.state, info.version, info.server, info.connections) == ("ready", "2026-07-28", "fake 1", 1)
        fake.sessions[0].changed.set()
        assert (await fake.connection.tools()).tools[0].name == "tool2"
        fake.clock.advance(FRESH_S)
        assert (await fake.connection.tools()).tools[0].name == "tool3"
        await fake.connection.close()
        assert fake.closed == 1

    asyncio.run(main())


def test_a_change_that_could_not_be_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    async def main() -> None:
        fake = Fake(tmp_path)
        await fake.connection.tools()
        fake.sessions[0].changed.set()
        fake.sessions[0].slow = True
        with pytest.raises(DeadlineExceeded):
            await fake.connection.tools()
        fake.sessions[0].slow = False
        assert (await fake.connection.tools()).tools[0].name == "tool2"
        await fake.connection.close()

    asyncio.run(main())


def test_who_comes_right_after_the_end_of_a_connection_waits_for_the_next_one(tmp_path: Path) -> None:
    """A program may have died of the call before."""

    async def main() -> None:
        fake = Fake(tmp_path)
        await fake.connection.tools()
        fake.sessions[0].ended.set()
        while not fake.closed:
            await asyncio.sleep(0)
        calls = [fake.connection.call("tool1", {}, 1.0) for _ in range(3)]
        assert len(await asyncio.gather(*calls, fake.connection.tools())) == 4
        assert len(fake.sessions) == 2
        await fake.connection.close()

    asyncio.run(main())


def test_a_lost_connection_is_made_again_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAUSE_S", 0.0)

    async def main() -> None:
        fake = Fake(tmp_path)
        await fake.connection.tools()
        fake.sessions[0].ended.set()
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="tried again in"):
            for _ in range(10):  # until its task has seen the end
                await asyncio.sleep(0)
                await fake.connection.call("tool1", {}, 1.0)
        fake.clock.advance(60.0)
        await fake.connection.call("tool1", {}, 1.0)
        assert fake.connection.info().connections == len(fake.sessions) == 2
        await fake.connection.close()
        assert fake.closed == 2

    asyncio.run(main())


def test_why_there_is_no_connection_is_told_to_all_who_wait(tmp_path: Path) -> None:
    async def main() -> None:
        fake = Fake(tmp_path)
        fake.fail = True
        results = await asyncio.gather(*(fake.connection.tools() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in results)
        assert "no such program" in str(results[0])
        assert fake.connection.info().state == "failed"
        fake.fail, fake.hang = False, True
        fake.clock.advance(60.0)
        results = await asyncio.gather(*(fake.connection.call("x", {}, 1.0) for _ in range(2)), return_exceptions=True)
        assert all("no answer within 0.5 s" in str(one) for one in results)
        await fake.connection.close()

    asyncio.run(main())


def test_a_server_that_was_deleted_is_not_started_again_by_who_still_knows_its_tools(tmp_path: Path) -> None:
    async def main() -> None:
        fake = Fake(tmp_path)
        await fake.connection.tools()
        await fake.connection.retire()
        fake.clock.advance(60.0)
        with pytest.raises(Unavailable, match="was changed, deleted"):
            await fake.connection.call("tool1", {}, 1.0)
        assert (len(fake.sessions), fake.closed) == (1, 1)

    asyncio.run(main())


@given(st.lists(st.sampled_from(["use", "lose", "advance", "fail", "mend", "close"]), max_size=12))
@settings(max_examples=40, deadline=None)
def test_whatever_happens_at_most_one_connection_is_open(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    async def main() -> None:
        fake = Fake(tmp_path_factory.getbasetemp())
        fake.connection._backoff = Backoff(first=0.001, most=0.002)  # it is waited for
        for act in acts:
            if act == "use":
                await asyncio.gather(fake.connection.tools(), fake.connection.tools(), return_exceptions=True)
            elif act == "lose" and fake.sessions:
                fake.sessions[-1].ended.set()
            elif act == "advance":
                fake.clock.advance(120.0)
            elif act in ("fail", "mend"):
                fake.fail = act == "fail"
            elif act == "close":
                await fake.connection.close()
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(fake.sessions) - fake.closed in (0, 1)
            ready = fake.connection.info().state == "ready"
            assert not ready or len(fake.sessions) - fake.closed == 1
        await fake.connection.close()
        assert fake.closed == len(fake.sessions)

    asyncio.run(main())

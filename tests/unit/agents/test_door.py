"""The same request from outside, sent again before the first was answered, is one run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmagentos.agents.door import Door
from llmagentos.agents.records import Agent
from llmagentos.core.errors import Conflict, NotFound
from llmagentos.security.identity import Identity, Kind
from support.house import House, house

pytestmark = pytest.mark.anyio
ADA = Identity(Kind.ADMIN, "ada")


def door(h: House) -> Door:
    async def agent_of(name: str) -> Agent:
        found = await h.agents.current(name)
        if found is None:
            raise NotFound(name)
        return found

    async def all_agents() -> list[Agent]:
        return []

    return Door(h.ledger, h.control, agent_of, all_agents)


@pytest.mark.parametrize("session", [None, "talk"])
async def test_sent_twice_at_once_it_is_one_run(tmp_path: Path, session: str | None) -> None:
    async with house(tmp_path) as h:
        asked = [door(h).ask("support", "hello", ADA, session=session, run="run000000001") for _ in range(8)]
        assert {run.id for run in await asyncio.gather(*asked)} == {"run000000001"}
        assert len(await h.ledger.newest(ended=True)) == 1
        again = await door(h).ask("support", "hello", ADA, session=session, run="run000000001")
        assert again.id == "run000000001"


async def test_another_request_of_a_busy_session_is_still_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await door(h).ask("support", "hello", ADA, session="talk", run="run000000001")
        with pytest.raises(Conflict, match="still works"):
            await door(h).ask("support", "more", ADA, session="talk", run="run000000002")
        with pytest.raises(Conflict, match="still works"):
            await door(h).ask("support", "more", ADA, session="talk")

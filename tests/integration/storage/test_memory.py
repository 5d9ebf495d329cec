"""Memory, sessions and sealed values on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from llmagentos.agents.memory import LongTerm, Scope
from llmagentos.api.agents import MemoryUse
from llmagentos.api.runs import Created, RunEvent, RunState, RunSummary
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict
from llmagentos.storage.database import Database
from llmagentos.storage.memory import FactRecords
from llmagentos.storage.runs import RunRecords
from llmagentos.storage.sessions import SessionRecords
from llmagentos.storage.values import ValueRecords

ADA = Scope("a", "operator:ada", MemoryUse(long_term=True, most=4))


async def embed(texts: Sequence[str], kind: str, run: str | None) -> list[list[float]]:
    return [[float("cat" in text or "pet" in text), float("tea" in text)] for text in texts]


def test_facts_are_found_by_words_and_meaning(database_url: str) -> None:
    async def main() -> None:
        database = Database(database_url)
        await database.create_all()
        records = FactRecords(database, ManualClock())
        await records.begin()
        memory = LongTerm(records, embed, ManualClock())
        for text in (
            "Her cats are called Whiskers and Tom\0",
            "用户喜欢喝绿茶，住在上海。",
            "It's O'Brien's \"server\" db-7",
        ):
            await memory.remember(ADA, text, ["标签"])
        await memory.remember(ADA._replace(user="operator:bob"), "secret: 绿茶")

        async def found(query: str) -> list[str]:
            return [fact.text[:6] for fact in await memory.recall(ADA, query)]

        assert await found("绿茶") == ["用户喜欢喝绿"]
        assert await found("上海") == ["用户喜欢喝绿"]
        assert await found("cat Whiskers") == ["Her ca"]  # `cats` too: words have one stem
        assert await found("the pet") == ["Her ca"]
        assert await found("o'brien") == ["It's O"]
        assert await found("!!! ' \" & | ( ) :*") == []
        assert len(await found("标签")) == 3
        for n in range(3):
            await memory.remember(ADA, f"fact {n}")
        assert len(await records.listing("operator:ada", "a")) == 4
        assert await records.forget("operator:ada", agent="a") == 4
        assert await found("标签") == []
        await database.aclose()

    asyncio.run(main())


def test_one_run_of_a_session_at_a_time_and_sessions_are_listed(database_url: str) -> None:
    async def main() -> None:
        database, clock = Database(database_url), ManualClock()
        await database.create_all()
        records, sessions = RunRecords(database, clock), SessionRecords(database)

        def summary(run: str, by: str, state: RunState = RunState.QUEUED) -> RunSummary:
            ended = clock.time() if state.ended else None
            return RunSummary(run, "a", 1, "m", state, "hi", clock.time(), by, "s", ended=ended)

        async def begin(run: str, by: str = "ada") -> None:
            event = RunEvent(1, clock.time(), Created("a", 1, "m", "hi", by, "s"))
            await records.create(summary(run, by), "server", [event])

        await begin("r1")
        await begin("r2", "bob")
        with pytest.raises(Conflict):
            await begin("r3")
        with pytest.raises(Conflict):
            await sessions.delete("a", "s", "ada")
        event = RunEvent(2, clock.time(), Created("a", 1, "m", "hi", "ada", "s"))
        await records.append(summary("r1", "ada", RunState.FAILED), [event], fence=0)
        await begin("r3")
        listed = await sessions.listing(by="ada", agent=None, limit=9)
        assert [(one.name, one.user, one.runs, one.busy) for one in listed] == [("s", "ada", 2, True)]
        assert len(await sessions.listing(by=None, agent="a", limit=9)) == 2
        assert await sessions.delete("a", "s", "nobody") == 0
        await database.aclose()

    asyncio.run(main())


def test_values_are_sealed_and_forgotten(database_url: str) -> None:
    async def main() -> None:
        database, clock = Database(database_url), ManualClock()
        await database.create_all()
        key = ec.generate_private_key(ec.SECP256R1())
        records = ValueRecords(database, clock, key)
        await records.save("r1", {"<EMAIL_1>": "ada@example.com"})
        assert await records.load("r1") == {"<EMAIL_1>": "ada@example.com"}
        stranger = ValueRecords(database, clock, ec.generate_private_key(ec.SECP256R1()))
        assert await stranger.load("r1") == {}
        await records.expire("r1", 60)
        clock.advance(61)
        assert await records.load("r1") == {}
        assert await records.prune() == 1
        await database.aclose()

    asyncio.run(main())

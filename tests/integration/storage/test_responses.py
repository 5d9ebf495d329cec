"""Responses in storage: each for its owner, followed back to the first, and no longer than they should be kept."""

from __future__ import annotations

import asyncio

import pytest

from llmagentos.api.responses import ModelResponse
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import InvalidInput
from llmagentos.storage import responses
from llmagentos.storage.database import Database
from llmagentos.storage.responses import ResponseRecords, StoredResponse


def stored(number: int, previous: int | None = None) -> StoredResponse:
    before = None if previous is None else f"resp_{previous}"
    response = ModelResponse(f"resp_{number}", 1, "m", "completed", previous_response_id=before)
    return StoredResponse([{"role": "user", "content": f"\0 {number}"}], response)


def test_who_asked_finds_it_until_it_is_pruned(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        database = Database(database_url)
        await database.create_all()
        clock = ManualClock(wall=1_000_000.0)
        records = ResponseRecords(database, clock, days=1, most=100, most_bytes=10**6)
        await records.add("ann", stored(0))
        clock.advance(90_000)
        for number in range(1, 6):
            await records.add("ann", stored(number, number - 1))
            clock.advance(1)
        await records.add("bob", stored(9))
        records = ResponseRecords(database, clock, days=1, most=3, most_bytes=10**6)
        assert [turn.response.id for turn in await records.chain("ann", "resp_3")] == [f"resp_{n}" for n in range(4)]
        assert await records.get("ann", "resp_3") == stored(3, 2)
        for owner, wanted in (("bob", "resp_3"), ("ann", "resp_9"), ("ann", "resp_x\0"), ("ann", "")):
            assert await records.get(owner, wanted) is None
            assert not await records.remove(owner, wanted)
        assert await records.prune() == 3  # one is old, two are over the limit
        assert await records.get("ann", "resp_2") is None
        assert await records.chain("ann", "resp_5") == []  # what it followed is gone
        assert await records.remove("ann", "resp_5")
        assert not await records.remove("ann", "resp_5")
        assert await records.get("bob", "resp_9") == stored(9)
        monkeypatch.setattr(responses, "MOST_TURNS", 2)
        await records.add("eve", stored(20))
        for number in (21, 22):
            await records.add("eve", stored(number, number - 1))
        with pytest.raises(InvalidInput, match="follows more than 2"):
            await records.chain("eve", "resp_22", most=3)
        monkeypatch.setattr(responses, "MOST_BYTES", 200)
        with pytest.raises(InvalidInput, match="more than 200 bytes"):
            await records.chain("eve", "resp_21")
        assert await records.get("eve", "resp_21") is not None
        await database.aclose()

    asyncio.run(main())


def test_of_one_owner_only_so_many_bytes_are_kept(database_url: str) -> None:
    """Also between two rounds of the retention, when somebody stores much at once."""

    def large(number: int) -> StoredResponse:
        return StoredResponse([{"role": "user", "content": "x" * 1000}], stored(number).response)

    async def main() -> None:
        database = Database(database_url)
        await database.create_all()
        clock = ManualClock(wall=1_000_000.0)
        records = ResponseRecords(database, clock, days=1, most=1000, most_bytes=20_000)
        await records.add("bob", large(1000))
        for number in range(100):
            await records.add("ann", large(number))
            clock.advance(1)
        left = [number for number in range(100) if await records.get("ann", f"resp_{number}") is not None]
        assert left == list(range(100 - len(left), 100))
        assert 10 <= len(left) <= 20
        await records.prune()
        records = ResponseRecords(database, clock, days=1, most=5, most_bytes=20_000)
        await records.prune()
        assert [n for n in range(100) if await records.get("ann", f"resp_{n}") is not None] == list(range(95, 100))
        assert await records.get("bob", "resp_1000") is not None
        await database.aclose()

    asyncio.run(main())

"""Who begins to follow a run in the middle of an answer has the answer from its beginning, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from llmagentos.agents import following
from llmagentos.agents.following import Draft
from llmagentos.api.runs import Answered, ModelCalled, ModelReplied, Purpose, RunEvent
from support.house import House, house

pytestmark = pytest.mark.anyio
CALLED = ModelCalled(Purpose.ANSWER, "m")


async def written(h: House, *pieces: str) -> tuple[str, int]:
    """A run whose answer has these pieces so far, and its fence."""
    run = await h.ask()
    claim = await h.taken()
    await h.ledger.append(run, claim.fence, 2, [CALLED])
    for piece in pieces:
        h.ledger.drafts.piece(run, piece)
    return run, claim.fence


async def some(items: AsyncIterator[Any], count: int) -> list[str | int]:
    """The first `count` items: pieces' texts, in capitals where they begin anew, and events' numbers."""
    found: list[str | int] = []
    async with asyncio.timeout(40):
        while len(found) < count:
            item = await anext(items)
            if isinstance(item, RunEvent):
                found.append(item.seq)
            else:
                found.append(item.text.upper() if item.begins else item.text)
    return found


@pytest.mark.parametrize(("after", "first"), [(0, [1, 2, 3, "SO IT"]), (2, [3, "SO IT"]), (3, ["SO IT"])])
async def test_it_is_told_what_was_written_before(tmp_path: Path, after: int, first: list[str | int]) -> None:
    async with house(tmp_path) as h:
        run, fence = await written(h, "so ", "it")
        async with aclosing(h.ledger.follow(run, after=after)) as items:  # type: ignore[type-var]
            assert await some(items, len(first)) == first
            h.ledger.drafts.piece(run, " is")
            await h.ledger.append(run, fence, 3, [ModelReplied(Purpose.ANSWER, "so it is"), Answered("so it is")])
            assert await some(items, 3) == [" is", 4, 5]


async def test_pieces_while_the_log_is_read_are_told_once(tmp_path: Path) -> None:
    """They come after the follower was noticed, and before it has read a thing."""
    async with house(tmp_path) as h:
        run, fence = await written(h, "so ")
        async with aclosing(h.ledger.follow(run)) as items:  # type: ignore[type-var]
            first = asyncio.create_task(some(items, 1))
            await asyncio.sleep(0)  # it listens, and waits for the database
            h.ledger.drafts.piece(run, "it")
            await h.ledger.append(run, fence, 3, [ModelReplied(Purpose.ANSWER, "so it"), Answered("so it")])
            assert [*await first, *await some(items, 6)] == [1, 2, 3, "SO ", "it", 4, 5]


async def test_an_answer_that_was_given_or_is_given_anew_is_no_draft(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        run, fence = await written(h, "so ")
        await h.ledger.append(run, fence, 3, [ModelReplied(Purpose.ANSWER, "so "), CALLED])
        assert h.ledger.drafts.now(run) == Draft(5, 5, [""])
        h.ledger.drafts.piece(run, "no")
        assert h.ledger.drafts.now(run) == Draft(5, 5, ["no"])
        await h.control.renice(run, 5, by="me")
        assert h.ledger.drafts.now(run) == Draft(6, 5, ["no"])
        await h.ledger.append(run, fence, 6, [ModelReplied(Purpose.ANSWER, "no"), Answered("no")])
        assert h.ledger.drafts.now(run) is None


async def test_a_very_long_answer_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST_DRAFT", 4)
    async with house(tmp_path) as h:
        run, _ = await written(h, "long", "er")
        assert h.ledger.drafts.now(run) is None

"""Long-term memory on a real database: scopes, bounds, words and meaning, without the engine and with it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.agents.grounding import RECALL_ID
from llmagentos.agents.memory import LongTerm, Scope, merged, nearest
from llmagentos.agents.memory_tools import with_memory
from llmagentos.agents.tools import CalledBy, Toolset
from llmagentos.api.agents import AgentSpec, MemoryUse
from llmagentos.api.memory import Fact, RunFact
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import InvalidInput, Unavailable
from llmagentos.storage.database import Database
from llmagentos.storage.memory import FactRecords
from unit.agents.conftest import Book, Scripted, begun

pytestmark = pytest.mark.anyio
USE = MemoryUse(long_term=True, most=3, days=10)
ADA, BOB = Scope("a", "operator:ada", USE), Scope("a", "operator:bob", USE)


@dataclass
class World:
    """A memory whose embedding engine can be away; a text's vector is how often each of a few words stands in it."""

    clock: ManualClock
    records: FactRecords
    away: bool = False
    asked: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def memory(self) -> LongTerm:
        return LongTerm(self.records, self.embed, self.clock)

    async def embed(self, texts: Sequence[str], kind: str, run: str | None) -> list[list[float]]:
        if self.away:
            raise Unavailable("the engine is away")
        self.asked.append((kind, list(texts)))
        meanings = [("cat", "pet", "猫"), ("tea", "drink", "茶"), ("city", "Shanghai", "上海")]
        return [[float(any(word in text for word in words)) for words in meanings] for text in texts]


@asynccontextmanager
async def world(url: str) -> AsyncIterator[World]:
    database = Database(url)
    clock = ManualClock()
    try:
        await database.create_all()
        records = FactRecords(database, clock)
        await records.begin()
        yield World(clock, records)
    finally:
        await database.aclose()


def texts(facts: Sequence[Fact]) -> list[str]:
    return [fact.text for fact in facts]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}"


async def test_words_and_meaning_find_and_nobody_else_sees(url: str) -> None:
    async with world(url) as w:
        await w.memory.remember(ADA, "Her cat is called Whiskers", ["animals"])
        await w.memory.remember(ADA, "用户喜欢喝绿茶")
        await w.memory.remember(BOB, "His cat is called Tom")
        assert texts(await w.memory.recall(ADA, "Whiskers")) == ["Her cat is called Whiskers"]
        assert texts(await w.memory.recall(ADA, "pet")) == ["Her cat is called Whiskers"]  # by meaning alone
        assert texts(await w.memory.recall(ADA, "绿茶")) == ["用户喜欢喝绿茶"]
        assert texts(await w.memory.recall(ADA, "animals")) == ["Her cat is called Whiskers"]
        assert texts(await w.memory.recall(BOB, "cat")) == ["His cat is called Tom"]
        assert texts(await w.memory.recall(Scope("other", "operator:ada", USE), "cat")) == []
        assert texts(await w.records.listing("operator:bob", None)) == ["His cat is called Tom"]


async def test_it_is_bounded_and_what_is_used_stays(url: str) -> None:
    async with world(url) as w:
        for text in ("one cat", "two dogs", "three cows"):
            w.clock.advance(1)
            await w.memory.remember(ADA, text)
        w.clock.advance(1)
        await w.memory.recall(ADA, "cat")
        w.clock.advance(1)
        await w.memory.remember(ADA, "four hens")
        assert sorted(texts(await w.records.listing("operator:ada", "a"))) == ["four hens", "one cat", "three cows"]
        w.clock.advance(9.5 * 86_400)
        await w.memory.recall(ADA, "hens")
        w.clock.advance(86_400)
        assert texts(await w.memory.recall(ADA, "cat cows hens")) == ["four hens"]
        assert await w.records.prune() == 2


async def test_the_same_again_is_the_same(url: str) -> None:
    async with world(url) as w:
        first = await w.memory.remember(ADA, "a  cat\n", key="run1/call-1")
        assert await w.memory.remember(ADA, "a cat", key="run1/call-1") == first
        assert (await w.memory.remember(ADA, "a cat")).id == first.id
        assert (await w.memory.remember(BOB, "a cat")).id != first.id
        for bad in ("", "  ", "x" * 2001):
            with pytest.raises(InvalidInput):
                await w.memory.remember(ADA, bad)


async def test_forgetting_is_ones_own(url: str) -> None:
    async with world(url) as w:
        fact = await w.memory.remember(ADA, "a cat")
        await w.memory.remember(ADA, "a dog")
        assert await w.records.forget("operator:bob", fact=fact.id) == 0
        assert await w.records.forget("operator:ada", fact=fact.id) == 1
        assert texts(await w.memory.recall(ADA, "cat")) == []
        assert await w.records.forget("operator:ada", agent="a") == 1
        assert await w.records.listing("operator:ada", None) == []


async def test_without_the_engine_words_are_searched_and_vectors_made_later(url: str) -> None:
    async with world(url) as w:
        w.away = True
        await w.memory.remember(ADA, "Her cat is called Whiskers")
        assert texts(await w.memory.recall(ADA, "Whiskers")) == ["Her cat is called Whiskers"]
        assert texts(await w.memory.recall(ADA, "pet")) == []
        w.away = False
        assert texts(await w.memory.recall(ADA, "pet")) == ["Her cat is called Whiskers"]
        assert texts(await w.memory.recall(ADA, "pet")) == ["Her cat is called Whiskers"]
        assert [kind for kind, _ in w.asked] == ["query", "passage", "query"]


async def test_a_lost_index_is_made_again(url: str) -> None:
    from sqlalchemy import text

    async with world(url) as w:
        await w.memory.remember(ADA, "Her cat is called Whiskers")
        async with w.records._database.write() as connection:
            await connection.execute(text("DROP TABLE memory_index"))
        await w.records.begin()
        assert await w.records.by_words("a", "operator:ada", "Whiskers", limit=5) == [1]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ada", "bob", "eve"]),
            st.sampled_from(["a", "b"]),
            st.text("猫茶ab 上海", min_size=1, max_size=8),
        ),
        max_size=8,
    ),
    st.text("猫茶ab 上海\"'*-()", max_size=10),
)
async def test_no_search_shows_anothers(tmp_path_factory: Any, facts: list[tuple[str, str, str]], query: str) -> None:
    async with world(f"sqlite:///{tmp_path_factory.mktemp('m') / 'test.db'}") as w:
        for user, agent, fact in facts:
            if fact.strip():
                await w.memory.remember(Scope(agent, user, USE), fact)
        for user in ("ada", "bob", "eve"):
            for agent in ("a", "b"):
                for fact_ in await w.memory.recall(Scope(agent, user, USE), query):
                    assert (fact_.user, fact_.agent) == (user, agent)


def test_ranks_are_merged() -> None:
    scores = merged([[1, 2, 3], [3, 1]])
    assert sorted(scores, key=lambda number: -scores[number]) == [1, 3, 2]
    assert nearest([1.0, 0.0], {1: [0.0, 1.0], 2: [0.9, 0.1], 3: [1.0], 4: [0.0, 0.0]}, 5) == [2]


class _Remembered:
    def __init__(self) -> None:
        self.facts: list[tuple[str, RunFact]] = []

    async def remember(self, run: str, fact: RunFact) -> Fact:
        self.facts.append((run, fact))
        return Fact("f", "a", "u", fact.text, 0.0, 0.0, fact.tags)

    async def recall(self, run: str, query: str) -> list[Fact]:
        return [Fact("f", "a", "u", "Her cat is called Whiskers", 0.0, 0.0)] if "cat" in query else []


def _carried(spec: AgentSpec, text: str, replies: Sequence[str]) -> tuple[Book, Scripted, _Remembered]:
    import asyncio

    from llmagentos.agents.loop import Loop

    memory, models, book = _Remembered(), Scripted(replies), Book(begun(spec, text))
    tools = with_memory(Toolset((), None), spec, memory)
    asyncio.run(_all(Loop("run1", spec, tools, models, book.add), book))
    return book, models, memory


async def _all(loop: Any, book: Book) -> None:
    await loop.carry_on(book.log, book.events)


def test_what_fits_the_request_stands_in_the_prompt_of_itself() -> None:
    spec = AgentSpec(name="a", model="m", memory=MemoryUse(long_term=True, recall="auto", remember=False))
    book, models, _ = _carried(spec, "What is my cat called?", ["Whiskers."])
    assert book.types[2:4] == ["tool_called", "tool_answered"]
    assert "- Her cat is called Whiskers" in models.prompts[0].messages[0].content
    assert book.log.answer is not None
    assert book.log.answer.sources == []
    _, models, _ = _carried(spec, "Hello", ["Hi."])
    assert [message.role for message in models.prompts[0].messages] == ["user"]


def test_the_model_remembers_and_recalls_by_tools() -> None:
    spec = AgentSpec(name="a", model="m", memory=MemoryUse(long_term=True))
    replies = [
        '{"tool": "remember", "arguments": {"text": "Ada has a cat", "tags": ["pets"]}}',
        '{"tool": "recall", "arguments": {"query": "cat"}}',
        '{"tool": "answer"}',
        "Noted.",
    ]
    book, models, memory = _carried(spec, "I have a cat", replies)
    assert memory.facts == [("run1", RunFact("call-1", "Ada has a cat", ["pets"]))]
    assert "Whiskers" in models.prompts[-1].messages[-1].content or "Whiskers" in str(models.prompts[-1].messages)
    assert book.log.answer is not None


async def test_arguments_of_the_tools_are_checked() -> None:
    spec = AgentSpec(name="a", model="m", memory=MemoryUse(long_term=True, recall="auto"))
    tools = with_memory(Toolset((), None), spec, _Remembered())
    assert [tool.name for tool in tools.tools] == ["remember"]
    assert tools.get(RECALL_ID) is not None
    with pytest.raises(InvalidInput):
        await tools.tools[0].invoke({"text": "x" * 5000}, 1.0, CalledBy("run1", "call-1"))

"""Whose share a call uses, how urgent it is, and how large it is guessed to be."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.llm import ChatRequest, EmbeddingRequest, Message, Usage
from llmagentos.llm.asking import Asked, Standing, Standings
from llmagentos.llm.sizes import Sizes, length_of, prefix_of
from llmagentos.security.identity import Identity, Kind
from support.server import eventually

pytestmark = pytest.mark.anyio
ME = Identity(Kind.MODULE, "shop")


class Runs:
    """Looks runs up, and counts how often."""

    def __init__(self, **runs: Standing) -> None:
        self.runs = runs
        self.asked: list[str] = []

    async def __call__(self, run: str) -> Standing | None:
        self.asked.append(run)
        return self.runs.get(run)


async def test_a_call_without_a_run_stands_for_its_caller() -> None:
    asked = await Standings().asked(ME, 5.0, None, None)
    assert asked == Asked(ME, 5.0, None, "module:shop", None, 0)
    assert (await Standings().asked(ME, 5.0, None, 7)).priority == 7


async def test_a_run_is_looked_up_once_until_it_is_forgotten() -> None:
    standings = Standings()
    standings.look_up = runs = Runs(r=Standing("admin:ann", "root", -3))
    for _ in range(3):
        asked = await standings.asked(ME, 5.0, "r", None)
        assert (asked.tenant, asked.program, asked.priority, asked.caller) == ("admin:ann", "root", -3, ME)
    assert runs.asked == ["r"]
    standings.forget("r")
    await standings.asked(ME, 5.0, "r", None)
    assert runs.asked == ["r", "r"]


async def test_a_run_that_nobody_knows_stands_for_itself() -> None:
    asked = await Standings().asked(ME, 5.0, "r", None)
    assert (asked.tenant, asked.program) == ("module:shop", "r")


async def test_another_priority_counts_for_sub_runs_too() -> None:
    standings = Standings()
    standings.look_up = Runs(root=Standing("a", "root"), sub=Standing("a", "root"), other=Standing("a", "other"))
    for run in ("root", "sub", "other"):
        await standings.asked(ME, 5.0, run, None)
    standings.renice("root", 9)
    found = {run: (await standings.asked(ME, 5.0, run, None)).priority for run in ("root", "sub", "other")}
    assert found == {"root": 9, "sub": 9, "other": 0}
    assert (await standings.asked(ME, 5.0, "sub", -9)).priority == 9
    assert (await standings.asked(ME, 5.0, "sub", 15)).priority == 15


async def test_a_run_that_is_reniced_while_it_is_looked_up_has_its_new_priority() -> None:
    """From its first call on, and so has a request that was asked before and waits for its budget."""
    stored, looking, go = {"r": 0}, 0, asyncio.Event()

    async def look_up(run: str) -> Standing:
        nonlocal looking
        looking += 1
        found = Standing("a", run, stored[run])
        await go.wait()
        return found

    standings = Standings()
    standings.look_up = look_up
    asking = asyncio.create_task(standings.asked(ME, 5.0, "r", None))
    await eventually(lambda: looking)
    stored["r"] = 3
    standings.renice("r", 3)
    go.set()
    asked = await asking
    assert (asked.priority, looking) == (3, 2)
    standings.renice("r", -7)
    assert standings.priority(asked) == -7
    assert standings.priority(await standings.asked(ME, 5.0, "r", 2)) == 2
    standings.forget("r")
    assert standings.priority(asked) == 3


def test_english_and_chinese_are_guessed_well_enough() -> None:
    english = ChatRequest([Message("user", "The quick brown fox jumps over the lazy dog. " * 20)])
    chinese = ChatRequest([Message("user", "敏捷的棕色狐狸跳过了懒狗。" * 20)])
    sizes = Sizes()
    assert 150 < sizes.of(length_of(english), None).tokens_in < 300  # 200 by GPT-4's tokenizer
    assert 130 < sizes.of(length_of(chinese), None).tokens_in < 400


def test_guesses_learn() -> None:
    sizes = Sizes()
    for _ in range(60):
        sizes.observe(1000, Usage(500, 10, 510))
    size = sizes.of(1000, None)
    assert (size.tokens_in, size.tokens_out) == (pytest.approx(500, rel=0.05), pytest.approx(10, abs=1))
    assert sizes.of(1000, 77).tokens_out == 77


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**5)), max_size=50))
def test_guesses_stay_sane_whatever_engines_say(seen: list[tuple[int, int, int]]) -> None:
    sizes = Sizes()
    for length, tokens_in, tokens_out in seen:
        sizes.observe(length, Usage(tokens_in, tokens_out, 0))
    assert 1 <= sizes.of(1200, None).tokens_in <= 1200
    assert 0 <= sizes.of(1200, None).tokens_out <= 10**5


def test_tools_and_parts_count() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 1000}}
    part = {"type": "text", "text": "y" * 1000}
    assert length_of(ChatRequest([Message("user", "hi")], tools=[tool])) > 1000
    assert length_of(ChatRequest([Message("user", [part])])) > 1000
    assert length_of(EmbeddingRequest(["ab", "cd"])) == 4


def test_prompts_that_begin_alike_have_the_same_name() -> None:
    def name(*texts: str, key: str | None = None, run: str | None = None) -> str | None:
        return prefix_of(ChatRequest([Message("user", text) for text in texts], prompt_cache_key=key), run)

    assert name("a", "b") == name("a", "c") != name("b", "b")
    assert (name("a", key="k"), name("a", run="r"), name("a", key="k", run="r")) == ("k", "r", "k")
    assert prefix_of(EmbeddingRequest("a"), "r") is None

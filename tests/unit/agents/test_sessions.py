"""Sessions: one writer however many ask at once, each caller's own, and summed up when they outgrow the context."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.compaction import MOST_TOKENS, bounded, due, estimate
from llmagentos.agents.log import SUMMED_UP, fold
from llmagentos.agents.model import Message, Prompt
from llmagentos.api.agents import AgentSpec, Limits
from llmagentos.api.runs import Answered, Claimed, ModelCalled, ModelReplied, Purpose, RunEvent, Turn
from llmagentos.core.errors import Conflict
from llmagentos.storage.sessions import SessionRecords
from support.house import house
from unit.agents.conftest import Book, Scripted, begun, carry_on

SPEC = AgentSpec(name="a", model="m", instructions="Be short.", limits=Limits(reply=64))


def turns(count: int, length: int = 120) -> list[Turn]:
    return [Turn(f"question {n} " + "x" * length, f"answer {n} " + "y" * length) for n in range(count)]


@pytest.mark.anyio
async def test_of_many_that_ask_at_once_one_begins(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        done = await asyncio.gather(*(h.ask(f"{n}", session="s") for n in range(20)), return_exceptions=True)
        begun = [run for run in done if isinstance(run, str)]
        assert len(begun) == 1
        assert {error.code for error in done if isinstance(error, Conflict)} == {"session_busy"}
        claim = await h.taken()
        await h.ledger.append(claim.run, claim.fence, 2, [Answered("first answer")])
        created = fold(await h.ledger.events(await h.ask("next", session="s")))
        assert [(turn.answer) for turn in created.history] == ["first answer"]


@pytest.mark.anyio
async def test_a_session_is_its_callers_own(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        agent = await h.agents.current("support")
        assert agent is not None
        await h.ledger.create(agent, "my secret", by="operator:ada", session="s")
        claim = await h.taken()
        await h.ledger.append(claim.run, claim.fence, 2, [Answered("noted")])
        other = await h.ledger.create(agent, "what did I say?", by="operator:bob", session="s")
        assert fold(await h.ledger.events(other.id)).history == []


@pytest.mark.anyio
async def test_a_summary_goes_on_to_the_next_run_and_failed_runs_lose_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for n in range(3):
            await h.ask(f"{n}", session="s")
            claim = await h.taken()
            h.clock.advance(1)
            await h.ledger.append(claim.run, claim.fence, 2, [Answered("x" * 5000)])
        killed = await h.ask("killed", session="s")
        await h.control.kill(killed, by="admin:me")
        h.clock.advance(1)
        log = fold(await h.ledger.events(await h.ask("last", session="s")))
        assert [turn.input for turn in log.history] == ["0", "1", "2"]


def test_a_session_that_outgrows_the_context_is_summed_up_by_a_call_in_the_log() -> None:
    world = Scripted(["The user asked about 0 to 4.", "ok"])
    book = Book(begun(SPEC, "Hi", history=turns(8), context=1300))
    carry_on(SPEC, world, book)
    assert book.types[2:] == ["model_called", "model_replied", "model_called", "model_replied", "answered"]
    called = book.events[2].data
    assert (called.purpose, called.covers) == (Purpose.COMPACT, 5)  # type: ignore[union-attr]
    first, second = world.prompts
    assert "question 0" in first.messages[1].content
    assert "question 5" not in first.messages[1].content
    asked = [message.content for message in second.messages if message.role == "user"]
    assert asked[0] == SUMMED_UP
    assert [text[:10] for text in asked[1:]] == ["question 5", "question 6", "question 7", "Hi"]
    assert second.messages[2].content == "The user asked about 0 to 4."
    summary, kept = book.log.after
    assert (summary, len(kept), kept[-1]) == ("The user asked about 0 to 4.", 4, Turn("Hi", "ok"))


def test_a_replay_at_any_event_has_the_same_prompts() -> None:
    world = Scripted(["sum one", "sum two", "ok"])
    book = Book(begun(SPEC, "Hi", history=turns(12, 300), context=1000))
    carry_on(SPEC, world, book)
    last = world.prompts[-1]
    for cut in range(2, len(book.events)):
        resumed = Book([*book.events[:cut], RunEvent(cut + 1, 100.0, Claimed("another", 2))])
        done = [event for event in book.events[:cut] if event.type == "model_replied"]
        again = Scripted(["sum one", "sum two", "ok"][len(done) :] or ["ok"])
        carry_on(SPEC, again, resumed)
        assert not again.prompts or again.prompts[-1] == last
        assert resumed.log.after == book.log.after


def test_an_empty_summary_fails_the_run_and_drops_nothing() -> None:
    book = Book(begun(SPEC, "Hi", history=turns(8), context=800))
    carry_on(SPEC, Scripted(["  "]), book)
    assert book.log.failure is not None
    assert book.log.failure.code == "compaction_failed"


def test_a_turn_longer_than_the_context_is_summed_up_too() -> None:
    world = Scripted(["short", "ok"])
    carry_on(SPEC, world, Book(begun(SPEC, "Hi", history=[Turn("长" * 9000, "y" * 9000)], context=800)))
    assert world.prompts[0].estimate < 800
    assert "characters are left out here" in world.prompts[0].messages[1].content
    assert [message.content for message in world.prompts[1].messages[1:]] == [SUMMED_UP, "short", "Hi"]


TURNS = st.lists(st.builds(Turn, st.text(max_size=400), st.text(max_size=400)), max_size=12)


@given(TURNS, st.integers(300, 4000), st.integers(0, 300))
def test_nothing_is_cut_and_it_ends(history: list[Turn], context: int, fixed: int) -> None:
    """Turns are summed up from the oldest on, each one stands whole in the prompt or in what is summed up."""
    spec = AgentSpec(name="a", model="m", instructions="i" * fixed, limits=Limits(reply=64, steps=100))
    book = Book(begun(spec, "Hi", history=history, context=context))
    log = book.log
    seen: list[Turn] = []
    for _ in range(len(history) + 1):
        texts = [
            message for turn in log.history for message in (Message("user", turn.input), Message("user", turn.answer))
        ]
        prompt = Prompt("m", (Message("system", "i" * fixed), *texts, Message("user", "Hi")), 64, Purpose.ANSWER)
        step = due(spec, log, prompt)
        if step is None:
            break
        _, left = log.before
        assert 1 <= step.covers <= len(left)
        seen += left[: step.covers]
        text = step.messages[1].content
        if estimate(left[: step.covers]) <= 0.6 * context:
            assert all(turn.input in text and turn.answer in text for turn in left[: step.covers])
        asyncio.run(book.add([ModelCalled(Purpose.COMPACT, "m", step.covers)]))
        asyncio.run(book.add([ModelReplied(Purpose.COMPACT, "a summary of what was said", 10, 5)]))
        log = book.log
    else:
        raise AssertionError("it does not end")
    assert [*seen, *log.before[1]] == history


def test_a_session_that_nobody_sums_up_is_bounded_and_says_so() -> None:
    small = turns(3)
    assert bounded("so far", small) == ("so far", small)
    summary, kept = "the user is Ada", turns(600, 300)
    summary, kept = bounded(summary, kept)
    gone = 600 - len(kept)
    assert MOST_TOKENS / 2 < estimate(kept) <= MOST_TOKENS
    assert summary == f"the user is Ada\n[{gone} older requests of this conversation were left out]"
    again, kept = bounded(summary, [*kept, *turns(600, 300)])
    assert again == f"the user is Ada\n[{1200 - len(kept)} older requests of this conversation were left out]"
    assert len(bounded("", [Turn("x" * 10**6, "y")])[1]) == 1


@pytest.mark.anyio
async def test_with_a_session_go_the_runs_below_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        above = await h.ask(session="s")
        claim = await h.taken()
        below = await h.ask(parent=above)
        others = await h.ask()
        sessions = SessionRecords(h.database)
        with pytest.raises(Conflict):
            await sessions.delete("support", "s", "admin:me")
        await h.ledger.append(above, claim.fence, 2, [Answered("done")])
        with pytest.raises(Conflict, match=f"{below} below it goes on"):
            await sessions.delete("support", "s", "admin:me")
        assert len(await h.ledger.events(above)) == 3
        await h.control.kill(below, by="admin:me")
        assert await sessions.delete("support", "s", "admin:me") == 1
        assert [await h.records.events(run) for run in (above, below)] == [[], []]
        assert await h.records.events(others)

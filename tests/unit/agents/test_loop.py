"""The loop with a scripted model: what it does, and that it can be cut at any point."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmagentos.agents import loop
from llmagentos.agents.remembering import Remembering
from llmagentos.agents.tools import tool
from llmagentos.api.agents import AgentSpec, Limits, ToolUse
from llmagentos.api.runs import Claimed, ModelCalled, Purpose, RunEvent, RunState, Turn
from llmagentos.core.errors import ModelError, ServiceError, TooManyRequests, Unavailable
from llmagentos.llm.engines.engine import QuotaExhausted
from llmagentos.storage.database import StorageUnavailable
from unit.agents.conftest import Book, Scripted, begun, carry_on, tools_of

GROUNDED = AgentSpec(name="support", model="m", instructions="Be short.", ground="shop.search")
KETTLE = {"name": "Blue Kettle", "price": "39.90 EUR"}
KNIFE = {"name": "Chef's Knife", "price": "79.00 EUR"}


def ask(spec: AgentSpec, text: str, world: Scripted, functions: Any = None, **more: Any) -> Book:
    book = Book(begun(spec, text, **more))
    carry_on(spec, world, book, functions)
    return book


def answer_of(book: Book) -> str:
    assert book.log.answer is not None, book.log.failure
    return book.log.answer.text


# Grounding ------------------------------------------------------------------------------------


def test_a_grounded_agent_answers_from_the_records() -> None:
    world = Scripted(["The blue kettle costs 39.90 EUR."], {"shop.search": [KETTLE, KNIFE]})
    book = ask(GROUNDED, "What does the blue kettle cost?", world)
    assert world.called == [("shop.search", {"query": "What does the blue kettle cost?"})]
    assert "39.90" in world.prompts[0].messages[-1].content
    assert world.prompts[0].temperature == 0.0
    assert book.log.answer is not None
    assert (book.log.answer.text, book.log.answer.sources) == ("The blue kettle costs 39.90 EUR.", [KETTLE])
    assert book.types[2:] == ["tool_called", "tool_answered", "model_called", "model_replied", "answered"]


@pytest.mark.parametrize("nothing", [[], None, {}, ""])
@pytest.mark.parametrize(("text", "said"), [("Do you sell cars?", "do not know"), ("你们卖汽车吗？", "不知道")])
def test_without_records_it_does_not_know_and_no_model_is_asked(nothing: Any, text: str, said: str) -> None:
    world = Scripted([], {"shop.search": nothing})
    book = ask(GROUNDED, text, world)
    assert said in answer_of(book)
    assert world.prompts == []
    assert book.log.answer is not None
    assert book.log.answer.sources == []


@pytest.mark.parametrize("invented", ["It costs 12.50 EUR.", "Certainly madam, elephants dance gracefully tonight."])
def test_what_the_model_invents_is_replaced_by_the_records(invented: str) -> None:
    world = Scripted([invented], {"shop.search": [KETTLE]})
    book = ask(GROUNDED, "What does the blue kettle cost?", world)
    assert "39.90 EUR" in answer_of(book)
    assert invented not in answer_of(book)
    assert book.log.answer is not None
    assert book.log.answer.replaced is not None


def test_an_agent_may_be_trusted_with_its_words() -> None:
    spec = AgentSpec(name="support", model="m", ground="shop.search", verify=False)
    assert answer_of(ask(spec, "Cost?", Scripted(["About 40."], {"shop.search": [KETTLE]}))) == "About 40."


def test_an_empty_reply_is_a_failure() -> None:
    book = ask(GROUNDED, "Kettle?", Scripted(["  \n"], {"shop.search": [KETTLE]}))
    assert book.log.failure is not None
    assert book.log.failure.code == "empty_answer"


def test_a_search_that_fails_fails_the_run() -> None:
    error = ServiceError("boom", remote_type="KeyError")
    book = ask(GROUNDED, "Kettle?", Scripted([], {"shop.search": error}))
    assert book.log.failure is not None
    assert book.log.failure.error == "shop.search: KeyError: boom"


def test_a_function_can_be_what_an_agent_stands_on() -> None:
    def find(question: str) -> list[dict[str, str]]:
        return [KETTLE]

    spec = AgentSpec(name="a", model="m", ground="find")
    book = ask(spec, "Cost?", Scripted(["39.90 EUR"]), tools_of(find))
    assert answer_of(book) == "39.90 EUR"


def test_the_session_is_in_the_prompt() -> None:
    world = Scripted(["The kettle costs 39.90 EUR."], {"shop.search": [KETTLE]})
    ask(GROUNDED, "And the kettle?", world, history=[Turn("Hello", "Hi, how can I help?")])
    assert [message.content for message in world.prompts[0].messages[1:3]] == ["Hello", "Hi, how can I help?"]


# The model chooses ----------------------------------------------------------------------------

CHOOSING = AgentSpec(name="a", model="m", tools=[ToolUse("shop.search"), ToolUse("shop.order")])
PICK = '{"tool": "shop.search", "arguments": {"query": "kettle"}}'


def test_the_model_calls_tools_until_it_answers() -> None:
    world = Scripted([PICK, '{"tool": "answer"}', "It costs 39.90."], {"shop.search": [KETTLE], "shop.order": 1})
    book = ask(CHOOSING, "Price of the kettle?", world)
    assert answer_of(book) == "It costs 39.90."
    assert world.called == [("shop.search", {"query": "kettle"})]
    schema = world.prompts[0].schema
    assert schema is not None
    names = [choice["properties"]["tool"]["const"] for choice in schema["anyOf"]]
    assert names == ["shop.search", "shop.order", "answer"]
    assert "39.90" in world.prompts[1].messages[-1].content
    assert [prompt.purpose for prompt in world.prompts] == [Purpose.TOOL, Purpose.TOOL, Purpose.ANSWER]
    assert book.log.answer is not None
    assert book.log.answer.sources == [KETTLE]


def test_a_tool_that_fails_is_told_to_the_model() -> None:
    failing = ServiceError("out of stock", remote_type="LookupError")
    world = Scripted([PICK, '{"tool": "answer"}', "Sold out."], {"shop.search": failing, "shop.order": 1})
    assert answer_of(ask(CHOOSING, "Price?", world)) == "Sold out."
    assert "LookupError: out of stock" in world.prompts[1].messages[-1].content


def test_an_unusable_choice_is_explained_once_and_then_fails() -> None:
    world = Scripted(["I think...", PICK, '{"tool": "answer"}', "ok"], {"shop.search": [KETTLE], "shop.order": 1})
    assert answer_of(ask(CHOOSING, "Price?", world)) == "ok"
    assert "not usable" in world.prompts[1].messages[-1].content
    book = ask(CHOOSING, "Price?", Scripted(['{"tool": "shop.serch"}'], {"shop.search": 1, "shop.order": 1}))
    assert book.log.failure is not None
    assert "did you mean 'shop.search'" in book.log.failure.error


def test_a_model_that_repeats_itself_has_to_answer() -> None:
    world = Scripted([PICK, PICK, "It costs 39.90."], {"shop.search": [KETTLE], "shop.order": 1})
    assert answer_of(ask(CHOOSING, "Price?", world)) == "It costs 39.90."
    assert len(world.called) == 1


def test_without_tools_it_just_answers() -> None:
    world = Scripted(["Hello!"])
    assert answer_of(ask(AgentSpec(name="a", model="m"), "Hi", world)) == "Hello!"
    assert world.prompts[0].schema is None


# Routed by embedding --------------------------------------------------------------------------


@tool(examples=["add two numbers"])
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@tool
def clock() -> str:
    """The time."""
    return "07:49"


ROUTED = AgentSpec(name="a", model="m", route="embedding", threshold=0.8)


def nearness(text: str) -> list[float]:
    words = text.lower()
    return [1.0 if "add" in words or "sum" in words else 0.0, 1.0 if "time" in words else 0.0, 0.1]


def test_the_closest_tool_is_called_with_arguments_from_the_request() -> None:
    world = Scripted(['{"a": 2, "b": 3}', "add: 5"], vectors=nearness)
    book = ask(ROUTED, "please add 2 and 3", world, tools_of(add, clock))
    assert book.log.answer is not None
    assert (book.log.answer.text, book.log.answer.sources) == ("add: 5", [{"add": 5}])
    assert world.prompts[0].schema is not None
    assert set(world.prompts[0].schema["properties"]) == {"a", "b"}


def test_a_tool_without_arguments_needs_no_model_to_call_it() -> None:
    world = Scripted(["07:49"], vectors=nearness)
    assert answer_of(ask(ROUTED, "what time is it", world, tools_of(add, clock))) == "07:49"
    assert len(world.prompts) == 1


def test_below_the_threshold_it_asks_back() -> None:
    world = Scripted([], vectors=nearness)
    book = ask(ROUTED, "sell me a horse", world, tools_of(add, clock))
    assert "Which of these do you mean?" in answer_of(book)
    assert "add: The sum" in answer_of(book)
    assert world.called == []


# Limits and failures --------------------------------------------------------------------------


EVER_ON = [f'{{"tool": "shop.search", "arguments": {{"query": "{n}"}}}}' for n in range(50)]


def test_steps_are_bounded() -> None:
    spec = AgentSpec(name="a", model="m", tools=CHOOSING.tools, limits=Limits(steps=5))
    book = ask(spec, "Go", Scripted(EVER_ON, {"shop.search": [KETTLE], "shop.order": 1}))
    assert book.log.failure is not None
    assert book.log.failure.code == "limit_steps"
    assert book.log.steps == 5


def test_tokens_are_bounded() -> None:
    spec = AgentSpec(name="a", model="m", tools=CHOOSING.tools, limits=Limits(tokens=400))
    book = ask(spec, "Go", Scripted(EVER_ON, {"shop.search": [KETTLE] * 10, "shop.order": 1}))
    assert book.log.failure is not None
    assert book.log.failure.code == "limit_tokens"


def test_a_reply_gets_no_more_tokens_than_are_left() -> None:
    world = Scripted(["ok"])
    ask(AgentSpec(name="a", model="m", limits=Limits(tokens=100)), "Hi", world)
    assert world.prompts[0].max_tokens < 100


def test_time_is_bounded_over_all_hosts() -> None:
    """The host before used it up; the time nobody had the run does not count."""
    spec = AgentSpec(name="a", model="m", limits=Limits(timeout=5))
    begin = begun(spec, "Hi")
    world = Scripted(["late"])
    book = Book([*begin, RunEvent(3, 105.0, ModelCalled(Purpose.ANSWER, "m")), RunEvent(4, 900.0, Claimed("b", 2))])
    carry_on(spec, world, book)
    assert book.log.failure is not None
    assert book.log.failure.code == "limit_timeout"
    assert world.prompts == []
    book = Book([*begin, RunEvent(3, 104.0, ModelCalled(Purpose.ANSWER, "m")), RunEvent(4, 900.0, Claimed("b", 2))])
    carry_on(spec, world, book)
    assert answer_of(book) == "late"


@pytest.mark.parametrize("error", [Unavailable("loading"), TooManyRequests("full", retry_after=0.001)])
def test_a_model_that_is_busy_or_loading_is_called_again(error: Any) -> None:
    assert answer_of(ask(AgentSpec(name="a", model="m"), "Hi", Scripted([error, "Hello!"]))) == "Hello!"


def test_a_database_that_is_away_is_waited_for() -> None:
    assert StorageUnavailable.code == loop._DATABASE_AWAY
    away = [StorageUnavailable("away") for _ in range(9)]
    assert answer_of(ask(AgentSpec(name="a", model="m"), "Hi", Scripted([*away, "Hello!"]))) == "Hello!"


def test_a_model_that_stays_busy_fails_the_run() -> None:
    busy = [TooManyRequests("full", retry_after=0.001) for _ in range(9)]
    book = ask(AgentSpec(name="a", model="m"), "Hi", Scripted([*busy, "Hello!"]))
    assert book.log.failure is not None
    assert book.log.failure.error == "full"


def test_a_quota_that_is_used_up_fails_the_run_at_once() -> None:
    over = QuotaExhausted("nothing is left", retry_after=0.001)
    book = ask(AgentSpec(name="a", model="m"), "Hi", Scripted([over, "Hello!"]))
    assert book.log.failure is not None
    assert (book.log.failure.error, book.log.failure.code) == ("nothing is left", "insufficient_quota")


def test_a_model_that_fails_fails_the_run() -> None:
    book = ask(AgentSpec(name="a", model="m"), "Hi", Scripted([ModelError("no", hint="look")]))
    assert book.log.failure is not None
    assert (book.log.failure.error, book.log.failure.code) == ("no (look)", "model_error")


def test_a_result_that_is_too_large_is_an_error_of_the_tool() -> None:
    world = Scripted([], {"shop.search": "x" * 300_000})
    book = ask(GROUNDED, "Hi", world)
    assert book.log.failure is not None
    assert "bytes" in book.log.failure.error


# Cut anywhere and carried on ------------------------------------------------------------------

CASES = [
    (GROUNDED, ["The blue kettle costs 39.90 EUR."], "What does the blue kettle cost?"),
    (CHOOSING, [PICK, '{"tool": "answer"}', "It costs 39.90."], "Price of the kettle?"),
    (ROUTED, ["07:49"], "what time is it"),
]


@pytest.mark.parametrize(("spec", "replies", "text"), CASES)
def test_cut_after_any_event_the_run_ends_the_same_and_no_answered_call_is_repeated(
    spec: AgentSpec, replies: list[str], text: str
) -> None:
    results = {"shop.search": [KETTLE], "shop.order": 1}
    functions = tools_of(add, clock) if spec is ROUTED else None

    def world(skip: int) -> Scripted:
        return Scripted(
            replies[skip:] or ["never said"], results, nearness, idempotent=frozenset({"shop.search", "shop.order"})
        )

    whole = ask(spec, text, world(0), functions)
    for cut in range(2, len(whole.events)):
        kept = whole.events[:cut]
        finished_replies = sum(
            event.type == "model_replied" and event.data.purpose is not Purpose.ROUTE  # type: ignore[union-attr]
            for event in kept
        )
        answered = sum(event.type == "tool_answered" for event in kept)
        book = Book([*kept, RunEvent(cut + 1, 100.0, Claimed("another", 2))])
        again = world(finished_replies)
        if any(event.type == "tool_called" for event in kept) and not answered and spec is ROUTED:
            continue  # a function that is not idempotent: see below
        log = carry_on(spec, again, book, functions)
        assert log.state is RunState.SUCCEEDED
        assert log.answer == whole.log.answer
        assert len(again.prompts) == len(replies) - finished_replies
        assert len(again.called) == (0 if answered or spec is ROUTED else 1)
        assert len(log.tools) == len(whole.log.tools)


def test_an_interrupted_call_that_must_not_be_repeated_is_not() -> None:
    calls = []

    def pay(amount: int) -> str:
        calls.append(amount)
        return "paid"

    spec = AgentSpec(name="a", model="m")
    functions = tools_of(pay)
    book = ask(
        spec, "Pay 5", Scripted(['{"tool": "pay", "arguments": {"amount": 5}}', '{"tool": "answer"}', "ok"]), functions
    )
    assert calls == [5]
    cut = book.types.index("tool_called") + 1
    resumed = Book([*book.events[:cut], RunEvent(cut + 1, 100.0, Claimed("another", 2))])
    world = Scripted(['{"tool": "answer"}', "Not sure whether it was paid."])
    carry_on(spec, world, resumed, functions)
    assert calls == [5]
    assert "not known" in world.prompts[0].messages[-1].content
    assert answer_of(resumed) == "Not sure whether it was paid."


def test_descriptions_of_tools_are_embedded_once() -> None:
    world = Scripted(vectors=nearness)
    asked: list[str] = []
    world.vectors = lambda text: asked.append(text) or nearness(text)  # type: ignore[func-returns-value]

    async def main() -> list[list[float]]:
        models = Remembering(world, most=2)
        await models.embed(["add", "time", "add"], kind="passage", run="r", timeout=1)
        await models.embed(["add"], kind="query", run="r", timeout=1)
        await models.embed(["time", "sum"], kind="passage", run="r", timeout=1)
        return await models.embed(["sum", "time"], kind="passage", run="r", timeout=1)

    assert asyncio.run(main()) == [nearness("sum"), nearness("time")]
    assert asked == ["add", "time", "add", "sum"]

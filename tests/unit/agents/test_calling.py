"""Tool calls of a model that asks for them itself: several at once, checked, bounded, agreed to, and ended in loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import pytest

from llmagentos.agents.agent import Agent
from llmagentos.agents.decide import decide
from llmagentos.agents.log import Log, apply, fold
from llmagentos.agents.loop import Loop
from llmagentos.agents.model import Reply
from llmagentos.agents.native import names
from llmagentos.agents.permits import denied, patterns, permitted
from llmagentos.agents.states import RunPaused
from llmagentos.agents.tools import CalledBy, OutcomeUnknown, Tool, Toolset, function_tool, tool
from llmagentos.api.agents import AgentSpec, Limits, ToolOptions, ToolUse
from llmagentos.api.runs import (
    ApprovalRequested,
    Approved,
    Claimed,
    Data,
    Denied,
    ModelCalled,
    ModelReplied,
    Purpose,
    RunEvent,
    RunState,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
    ToolRequest,
)
from llmagentos.core.errors import ConfigError, TooManyRequests, Unavailable
from unit.agents.conftest import Book, Scripted, begun, carry_on, tools_of

NATIVE = AgentSpec(name="a", model="m", instructions="Be short.", tools_by="native")


def wants(*calls: tuple[str, Any], text: str = "") -> Reply:
    """A reply that asks for tools."""
    asked = [
        ToolRequest(name, given if isinstance(given, str) else msgspec.json.encode(given).decode())
        for name, given in calls
    ]
    return Reply(text, 10, 5, calls=tuple(asked))


@tool(idempotent=True)
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


def ask(replies: Sequence[Any], *functions: Callable[..., Any], spec: AgentSpec = NATIVE) -> tuple[Book, Scripted]:
    world, book = Scripted(replies), Book(begun(spec, "Go"))
    carry_on(spec, world, book, tools_of(*functions))
    return book, world


def refusals(book: Book) -> list[str]:
    return [event.data.error for event in book.events if isinstance(event.data, ToolRefused)]


# What the model is sent ------------------------------------------------------------------------


def test_calls_and_their_results_are_a_conversation() -> None:
    book, world = ask([wants(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}), text="Hm."), "3 and 7"], add)
    assert book.log.answer is not None
    assert book.log.answer.text == "3 and 7"
    assert world.prompts[0].tools[0]["function"]["name"] == "add"
    assert world.prompts[0].schema is None
    messages = world.prompts[1].messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool", "tool"]
    assert [call_id for call_id, _ in messages[2].calls] == ["call-1", "call-2"]
    assert [(message.call_id, message.content) for message in messages[3:]] == [("call-1", "3"), ("call-2", "7")]


def test_results_stand_in_the_order_asked_whichever_came_first() -> None:
    async def wait(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    book, world = ask([wants(("wait", {"seconds": 0.05}), ("wait", {"seconds": 0.0})), "done"], wait)
    answered = [event.data.call_id for event in book.events if isinstance(event.data, ToolAnswered)]
    assert answered == ["call-2", "call-1"]
    assert [message.call_id for message in world.prompts[1].messages[-2:]] == ["call-1", "call-2"]


def test_names_are_made_fit_for_the_api_and_told_apart() -> None:
    made = [
        function_tool(tool(name=name)(lambda: None)) for name in ("shop.find", "shop_find", "买", "x" * 80, "x" * 81)
    ]
    given = names(made)
    assert list(given.values()) == [each.name for each in made]
    assert all(len(name) <= 64 and name.replace("_", "a").replace("-", "a").isascii() for name in given)


# At the same time -------------------------------------------------------------------------------


def test_calls_run_at_the_same_time_within_the_bound() -> None:
    under_way, most = 0, 0

    async def wait(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return number

    spec = AgentSpec(name="a", model="m", tools_by="native", limits=Limits(parallel=3, steps=50))
    book, _ = ask([wants(*(("wait", {"number": n}) for n in range(9))), "done"], wait, spec=spec)
    assert most == 3
    assert [turn.result for turn in book.log.tools] == list(range(9))


def test_after_a_crash_settled_calls_are_not_made_again_and_open_ones_only_when_they_may() -> None:
    made: list[str] = []

    @tool(idempotent=True)
    def look(what: str) -> str:
        """Look."""
        made.append(what)
        return what

    def pay(what: str) -> str:
        made.append(what)
        return what

    calls = [("look", {"what": "a"}), ("look", {"what": "b"}), ("pay", {"what": "c"}), ("pay", {"what": "d"})]
    whole, _ = ask([wants(*calls), "done"], look, pay)
    assert sorted(made) == ["a", "b", "c", "d"]
    reply = next(event for event in whole.events if event.type == "model_replied")
    told: list[Data] = [
        *(ToolCalled(f"call-{n}", name, given) for n, (name, given) in enumerate(calls[:3], 1)),
        ToolAnswered("call-1", "a"),
        Claimed("another", 2),
    ]
    kept = whole.events[: reply.seq]
    book = Book([*kept, *(RunEvent(reply.seq + i, 100.0, data) for i, data in enumerate(told, 1))])
    made.clear()
    world = Scripted(["done"])
    carry_on(NATIVE, world, book, tools_of(look, pay))
    assert sorted(made) == ["b", "d"]  # b may be made again, d was never begun, c nobody knows
    shown = [message.content for message in world.prompts[0].messages if message.role == "tool"]
    assert shown[:2] + shown[3:] == ["a", "b", "d"]
    assert "whether it was carried out is not known" in shown[2]


def test_a_run_may_have_to_fail_when_nobody_knows() -> None:
    @tool(interrupted="fail")
    def pay() -> str:
        """Pay."""
        return "paid"

    events = [
        *begun(NATIVE, "Go"),
        RunEvent(3, 100.0, ToolCalled("call-1", "pay", {})),
        RunEvent(4, 100.0, Claimed("b", 2)),
    ]
    book = Book(events)
    carry_on(NATIVE, Scripted(), book, tools_of(pay))
    assert book.log.failure is not None
    assert book.log.failure.code == "outcome_unknown"


@pytest.mark.parametrize("interrupted", ["tell", "fail"])
@pytest.mark.parametrize("found", [True, False])
def test_a_tool_that_finds_what_it_began_is_asked_for_it(interrupted: Literal["tell", "fail"], found: bool) -> None:
    """An interrupted call of it is neither given up nor repeated blindly."""

    async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
        assert by == CalledBy("run1", "call-1", again=True)
        if not found:
            raise OutcomeUnknown.of("far")
        return "paid"

    far = Tool(
        "far", "Far.", {"type": "object"}, False, invoke, options=ToolOptions(interrupted=interrupted), finds=True
    )
    called = [
        RunEvent(3, 100.0, ModelCalled(Purpose.ANSWER, "m")),
        RunEvent(4, 100.0, ModelReplied(Purpose.ANSWER, "", calls=[ToolRequest("far", "{}")])),
        RunEvent(5, 100.0, ToolCalled("call-1", "far", {})),
        RunEvent(6, 100.0, Claimed("b", 2)),
    ]
    book = Book([*begun(NATIVE, "Go"), *called])
    log = carry_on(NATIVE, Scripted(["done"]), book, {"far": far})
    if not found and interrupted == "fail":
        assert log.failure is not None
        assert log.failure.code == "outcome_unknown"
        return
    (turn,) = log.tools
    assert log.answer is not None
    assert turn.result == ("paid" if found else None)
    assert found or "whether it was carried out is not known" in str(turn.error)


def test_when_the_run_is_paused_calls_under_way_are_still_noted() -> None:
    book = Book(begun(NATIVE, "Go"))
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "slow"

    async def add(data: Sequence[Data]) -> Sequence[RunEvent]:
        if isinstance(data[0], ToolCalled) and data[0].call_id == "call-2":
            gate.set()
            raise RunPaused("the run is paused")
        return await book.add(data)

    async def main() -> None:
        tools = Toolset((function_tool(slow),), None)
        loop = Loop("run1", NATIVE, tools, Scripted([wants(("slow", {}), ("slow", {}))]), add)
        with pytest.raises(RunPaused):
            await loop.carry_on(book.log, book.events)

    asyncio.run(main())
    assert [turn.result for turn in book.log.tools] == ["slow"]


def test_a_pause_at_a_refusal_cuts_off_no_call() -> None:
    """The refusal stands after a call that takes a while: that one is either not begun or noted to its end."""
    book = Book(begun(NATIVE, "Go"))

    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "slow"

    async def add(data: Sequence[Data]) -> Sequence[RunEvent]:
        if isinstance(data[0], ToolRefused):
            await asyncio.sleep(0.01)
            raise RunPaused("the run is paused")
        return await book.add(data)

    async def main() -> None:
        tools = Toolset((function_tool(slow),), None)
        loop = Loop("run1", NATIVE, tools, Scripted([wants(("slow", {}), ("slow", "[1]"))]), add)
        with pytest.raises(RunPaused):
            await loop.carry_on(book.log, book.events)

    asyncio.run(main())
    assert book.log.open_tools == ()


# Checks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("add", {"a": 1}), "the arguments do not fit: b is missing"),
        (("add", '{"a": 1,'), "the arguments are no JSON object"),
        (("add", "[1]"), "the arguments are no JSON object"),
        (("ad", {}), "there is no tool 'ad'; did you mean 'add'?"),
    ],
)
def test_what_cannot_be_called_is_told_to_the_model(call: tuple[str, Any], said: str) -> None:
    book, world = ask([wants(call), "sorry"], add)
    assert said in refusals(book)[0]
    assert said in world.prompts[1].messages[-1].content
    assert book.log.tool_calls == 0
    assert book.log.state is RunState.SUCCEEDED


def test_a_model_that_goes_round_in_circles_is_told_once_and_then_stopped() -> None:
    made = []

    def look(at: str) -> str:
        made.append(at)
        return "nothing"

    book, world = ask([wants(("look", {"at": "x"}))], look)
    assert made == ["x"] * 3
    assert "3 times with the same arguments" in world.prompts[4].messages[-1].content
    assert book.log.failure is not None
    assert book.log.failure.code == "tool_loop"
    assert len(refusals(book)) == 1


def test_the_same_call_several_times_in_one_reply_counts() -> None:
    book, _ = ask([wants(*[("add", {"a": 1, "b": 1})] * 5), "ok"], add)
    assert (book.log.tool_calls, len(refusals(book))) == (3, 2)
    assert book.log.state is RunState.SUCCEEDED


def test_more_calls_than_steps_are_left_are_not_made() -> None:
    spec = AgentSpec(name="a", model="m", tools_by="native", limits=Limits(steps=4))
    book, _ = ask([wants(*(("add", {"a": 1, "b": n}) for n in range(9))), "ok"], add, spec=spec)
    assert book.log.tool_calls == 3
    assert book.log.failure is not None
    assert book.log.failure.code == "limit_steps"


# Time, retries, size ------------------------------------------------------------------------------


def test_a_tool_has_its_own_time() -> None:
    @tool(timeout=0.02)
    async def slow() -> None:
        """Slow."""
        await asyncio.sleep(100)

    begun_at = time.monotonic()
    book, _ = ask([wants(("slow", {})), "ok"], slow)
    assert time.monotonic() - begun_at < 40
    assert book.log.tools[0].error == "no result within 0.02 s: whether it was carried out is not known"


def test_what_may_be_repeated_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmagentos.agents.making.RETRY_FIRST_S", 0.001)
    tries: list[int] = []

    @tool(idempotent=True, retries=2)
    def flaky(good: int) -> str:
        """Flaky."""
        tries.append(good)
        if len(tries) < good:
            raise OSError("no")
        return "yes"

    book, _ = ask([wants(("flaky", {"good": 3})), "ok"], flaky)
    assert (len(tries), book.log.tools[0].result, book.log.tool_calls) == (3, "yes", 1)
    tries.clear()
    book, _ = ask([wants(("flaky", {"good": 9})), "ok"], flaky)
    assert (len(tries), book.log.tools[0].error) == (3, "OSError: no")


def test_retries_need_a_promise() -> None:
    @tool(retries=2)
    def pay() -> None:
        """Pay."""

    with pytest.raises(ConfigError, match="must not be repeated"):
        Agent("a", tools=[pay])
    with pytest.raises(ConfigError, match="aproval"):
        tool(aproval="required")(add)


def test_a_long_result_is_cut_and_says_so() -> None:
    @tool(result_bytes=64)
    def long() -> str:
        """Long."""
        return "é" * 500

    @tool(result_bytes=64)
    def table() -> list[int]:
        """Long too."""
        return list(range(100))

    book, _ = ask([wants(("long", {}), ("table", {})), "ok"], long, table)
    first, second = sorted((str(turn.result) for turn in book.log.tools), reverse=True)
    assert first == "é" * 32 + "\n[cut: these are the first 64 of 1000 bytes]"
    assert second.startswith("[0,1,2,")
    assert "of 291 bytes" in second


# People -------------------------------------------------------------------------------------------


@tool(approval="required", approval_timeout=60)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def test_a_person_is_asked_after_everything_else_and_the_run_waits() -> None:
    book, _ = ask([wants(("pay", {"amount": 5}), ("add", {"a": 1, "b": 1}), ("pay", {"amount": 6}))], pay, add)
    assert book.log.state is RunState.WAITING
    assert book.types[-4:] == ["tool_called", "tool_answered", "approval_requested", "approval_requested"]
    assert [(q.call_id, q.arguments, q.timeout) for q in book.log.questions] == [
        ("call-1", {"amount": 5}, 60.0),
        ("call-3", {"amount": 6}, 60.0),
    ]
    for data in (Approved("call-1", "admin:me"), Denied("call-3", "admin:me", "too much"), Claimed("b", 2)):
        asyncio.run(book.add([data]))
    world = Scripted(["done"])
    carry_on(NATIVE, world, book, tools_of(pay, add))
    assert [m.content for m in world.prompts[0].messages[-3:]] == [
        "paid 5",
        "2",
        "failed: denied by admin:me: too much",
    ]
    assert book.log.state is RunState.SUCCEEDED


def test_the_small_models_way_asks_people_too() -> None:
    spec = AgentSpec(name="a", model="m", tools_by="schema")
    book, _ = ask(['{"tool": "pay", "arguments": {"amount": 5}}'], pay, spec=spec)
    assert book.log.state is RunState.WAITING
    for data in (Denied("call-1", "admin:me"), Claimed("b", 2)):
        asyncio.run(book.add([data]))
    world = Scripted(['{"tool": "answer"}', "I may not."])
    carry_on(spec, world, book, tools_of(pay))
    assert "denied by admin:me" in world.prompts[0].messages[-1].content
    assert book.log.answer is not None


def test_wrong_arguments_are_told_before_a_person_is_asked() -> None:
    book, _ = ask([wants(("pay", {"amount": "five"})), "sorry"], pay)
    assert refusals(book) == ['the arguments do not fit: amount has to be integer, not "five"']


def test_while_a_question_is_open_nothing_is_decided() -> None:
    log = fold(begun(NATIVE, "Go"))
    log = apply(log, RunEvent(3, 100.0, ApprovalRequested("call-1", "pay", {"amount": 1})))
    assert decide(NATIVE, Toolset((), None), log) is None


# Who may ------------------------------------------------------------------------------------------


def test_who_may_use_a_tool() -> None:
    @tool(allow=["admin:*", "operator:ada"])
    def secret() -> str:
        """Secret."""
        return "s"

    tools = Toolset((function_tool(secret), function_tool(add)), None)
    assert permitted(tools, "admin:me", []).forbidden == frozenset()
    assert permitted(tools, "operator:ada", ["ad*"]).forbidden == {"add"}
    less = permitted(tools, "operator:bob", [])
    assert [each.name for each in less.tools] == ["add"]
    assert less.forbidden == {"secret"}
    deny = {"viewer:*": ["shop.*"], "*:bob": ["add"]}
    assert patterns(deny, "viewer:bob") == ["add", "shop.*"]
    assert denied("shop.pay", patterns(deny, "viewer:eve"))
    assert not denied("shop.pay", patterns(deny, "admin:eve"))


def test_a_forbidden_tool_is_not_offered_and_not_called() -> None:
    book, world = Book(begun(NATIVE, "Go")), Scripted([wants(("add", {"a": 1, "b": 1})), "ok"])

    async def main() -> Log:
        tools = permitted(Toolset((function_tool(add), function_tool(pay)), None), "operator:bob", ["add"])
        return await Loop("run1", NATIVE, tools, world, book.add).carry_on(book.log, book.events)

    asyncio.run(main())
    assert [each["function"]["name"] for each in world.prompts[0].tools] == ["pay"]
    assert refusals(book) == ["add may not be used in this run"]


def test_a_budget_without_room_ends_the_run_after_the_calls_under_way() -> None:
    book = Book(begun(NATIVE, "Go"))

    async def append(data: Sequence[Data]) -> Sequence[RunEvent]:
        if isinstance(data[0], ToolCalled) and data[0].call_id == "call-2":
            raise TooManyRequests("no room", retry_after=1.0)
        return await book.add(data)

    async def main() -> None:
        tools = Toolset((function_tool(add),), None)
        replies = [wants(("add", {"a": 1, "b": 1}), ("add", {"a": 2, "b": 1}))]
        await Loop("run1", NATIVE, tools, Scripted(replies), append).carry_on(book.log, book.events)

    asyncio.run(main())
    assert book.log.failure is not None
    assert (book.log.failure.error, book.log.failure.code) == ("no room", "too_many_requests")
    assert len(book.log.tools) == 1


def test_options_are_keys_of_every_tool_in_a_definition() -> None:
    world = Scripted([wants(("shop_pay", {"query": "5"})), "ok"], {"shop.pay": Unavailable("away")})
    entry = ToolUse("shop.pay", approval="required")
    spec = AgentSpec(name="a", model="m", tools_by="native", tools=[entry])
    book = Book(begun(spec, "Go"))
    carry_on(spec, world, book)
    assert [question.name for question in book.log.questions] == ["shop.pay"]


# What tools do to their run ----------------------------------------------------------------------


def test_an_endless_error_is_cut_as_an_endless_result_is() -> None:
    @tool(result_bytes=500)
    def boom() -> str:
        """Fails at length."""
        raise ValueError("好" * 10**6)

    book, _ = ask([wants(("boom", {})), "I see"], boom)
    (answered,) = [event.data for event in book.events if isinstance(event.data, ToolAnswered)]
    assert answered.error is not None
    assert answered.error.startswith("ValueError: 好")
    assert "[cut: these are the first 500 of 3000012 bytes]" in answered.error
    assert len(answered.error.encode()) < 600


def test_a_timeout_of_the_tools_own_is_not_taken_for_the_end_of_its_time() -> None:
    @tool
    def late() -> str:
        """Gives up by itself."""
        raise TimeoutError("the printer does not answer")

    book, _ = ask([wants(("late", {})), "I see"], late)
    (answered,) = [event.data for event in book.events if isinstance(event.data, ToolAnswered)]
    assert answered.error == "TimeoutError: the printer does not answer"


def test_memory_that_is_denied_is_not_looked_up_and_the_run_goes_on() -> None:
    @tool(idempotent=True)
    def recall(query: str) -> str:
        """What is remembered."""
        raise AssertionError("it was called")

    (made,) = tools_of(recall).values()
    tools = permitted(Toolset((), None, hidden=(made,)), "operator:eve", ["recall"])
    assert tools.forbidden == {"recall"}

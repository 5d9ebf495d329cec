"""AG-UI: whatever a run's log is, the events come in the order that clients rely on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.agui import Translation, request_of
from llmagentos.api import runs
from llmagentos.api.agui import InputMessage, RunAgentInput
from llmagentos.api.runs import Purpose, RunDelta, RunEvent
from llmagentos.core.errors import InvalidInput


def translated(items: list[Any]) -> list[dict[str, Any]]:
    translation = Translation("thread", "run", "own")
    told = translation.begin()
    for seq, item in enumerate(items, 1):
        told += translation.events(item if isinstance(item, RunDelta) else RunEvent(seq, 1.5, item))
    return told


CREATED = runs.Created("a", 1, "m", "what?", "admin:ada")
CALLED = runs.ModelCalled(Purpose.ANSWER, "m")
REPLIED = runs.ModelReplied(Purpose.ANSWER, "so it is")


def kinds(items: list[Any]) -> list[str]:
    return [event["type"] for event in translated(items)]


def test_a_streamed_answer_is_one_message() -> None:
    told = kinds(
        [CREATED, CALLED, RunDelta("own", "so "), RunDelta("own", "it is"), REPLIED, runs.Answered("so it is")]
    )
    assert told == [
        "RUN_STARTED",
        "STATE_SNAPSHOT",
        "STEP_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_CONTENT",
        "STEP_FINISHED",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]


def test_an_answer_that_was_not_streamed_is_told_whole_and_one_that_was_replaced_is_taken_back() -> None:
    whole = translated([CREATED, CALLED, REPLIED, runs.Answered("so it is")])
    assert [event["delta"] for event in whole if event["type"] == "TEXT_MESSAGE_CONTENT"] == ["so it is"]
    replaced = translated([CREATED, CALLED, RunDelta("own", "invented"), REPLIED, runs.Answered("the records")])
    snapshot = next(event for event in replaced if event["type"] == "MESSAGES_SNAPSHOT")
    assert [message["content"] for message in snapshot["messages"]] == ["what?", "the records"]


def test_a_failure_ends_what_is_open() -> None:
    told = kinds([CREATED, CALLED, RunDelta("own", "so"), runs.Failed("no model", "unavailable")])
    assert told[-3:] == ["TEXT_MESSAGE_END", "STEP_FINISHED", "RUN_ERROR"]


EVENTS = st.lists(
    st.sampled_from(
        [
            CALLED,
            REPLIED,
            runs.Claimed("h", 1),
            RunDelta("own", "x"),
            RunDelta("own", ""),
            runs.ToolCalled("c", "t", {}),
            runs.ToolAnswered("c", "r"),
            runs.ToolRefused("d", "t", {}, "no"),
            runs.ApprovalRequested("c", "t", {}),
            runs.Approved("c", "ada"),
            runs.Paused("ada"),
            runs.Resumed("ada"),
            runs.Reniced(3, "ada"),
        ]
    ),
    max_size=30,
)
ENDS = st.sampled_from([runs.Answered("x"), runs.Answered(""), runs.Failed("e"), runs.Killed("ada"), runs.Exited(1)])


@given(EVENTS, ENDS)
def test_the_order_that_clients_rely_on(items: list[Any], end: Any) -> None:
    told = translated([CREATED, *items, end])
    assert told[0]["type"] == "RUN_STARTED"
    assert told[-1]["type"] in ("RUN_FINISHED", "RUN_ERROR")
    step: str | None = None
    message: str | None = None
    used: set[str] = set()
    for event in told[1:-1]:
        match event["type"]:
            case "STEP_STARTED":
                assert step is None
                step = event["stepName"]
            case "STEP_FINISHED":
                assert step == event["stepName"]
                step = None
            case "TEXT_MESSAGE_START":
                assert message is None
                message = event["messageId"]
                assert message not in used
                used.add(message)
            case "TEXT_MESSAGE_CONTENT":
                assert message == event["messageId"]
                assert event["delta"]
            case "TEXT_MESSAGE_END":
                assert message == event["messageId"]
                message = None
            case kind:
                assert kind not in ("RUN_STARTED", "RUN_FINISHED", "RUN_ERROR")
    assert step is None
    assert message is None


def given_messages(*messages: InputMessage) -> RunAgentInput:
    return RunAgentInput("t", "r", list(messages))


def test_the_last_message_is_what_is_asked() -> None:
    assert request_of(given_messages(InputMessage("assistant", "hi"), InputMessage("user", "and?"))) == "and?"
    parts = [{"type": "text", "text": "a"}, {"type": "binary"}, {"type": "text", "text": "b"}]
    assert request_of(given_messages(InputMessage("user", parts))) == "a\nb"
    with pytest.raises(InvalidInput, match="must be the user's"):
        request_of(given_messages(InputMessage("assistant", "hi")))
    with pytest.raises(InvalidInput, match="no text"):
        request_of(given_messages(InputMessage("user", None)))


def test_an_answer_that_goes_on_after_a_pause_is_told_once() -> None:
    again = [runs.Paused("me"), runs.Resumed("me"), runs.Claimed("h", 2), CALLED]
    told = translated(
        [CREATED, CALLED, RunDelta("own", "so "), *again, RunDelta("own", "so it"), RunDelta("own", " is"), REPLIED]
    )
    assert [event["delta"] for event in told if event["type"] == "TEXT_MESSAGE_CONTENT"] == ["so ", "it", " is"]
    assert sum(event["type"] == "TEXT_MESSAGE_START" for event in told) == 1


def test_an_answer_that_came_out_otherwise_is_a_message_of_its_own() -> None:
    items = [CREATED, CALLED, RunDelta("own", "so "), runs.Claimed("h", 2), CALLED, RunDelta("own", "no"), REPLIED]
    told = [event["type"] for event in translated([*items, runs.Answered("no")])]
    assert told.count("TEXT_MESSAGE_START") == told.count("TEXT_MESSAGE_END") == 2
    assert "MESSAGES_SNAPSHOT" not in told

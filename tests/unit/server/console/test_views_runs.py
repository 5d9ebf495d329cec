"""A run's log becomes a timeline: calls and replies are one line, and nothing that ended seems to go on."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from llmagentos.agents import log as runlog
from llmagentos.api.runs import (
    Answered,
    Claimed,
    Created,
    Data,
    Exited,
    Failed,
    Killed,
    ModelCalled,
    ModelReplied,
    ModelUsed,
    Paused,
    Purpose,
    Reniced,
    Resumed,
    RunEvent,
    ToolAnswered,
    ToolCalled,
    Wait,
)
from llmagentos.server.console.views import runs
from llmagentos.server.console.words import Translate

ASKED = [Created("support", 1, "default", "How much?", "admin:li"), Claimed("server/1", 1)]
CALLED = ModelCalled(Purpose.ANSWER, "default")


def events(*data: Data) -> list[RunEvent]:
    return [RunEvent(seq, 1000.0 + seq, item) for seq, item in enumerate([*ASKED, *data], 1)]


def page(t: Translate, *data: Data) -> dict[str, Any]:
    log = events(*data)
    return runs.page(runlog.detail("r1", runlog.fold(log)), log, t)


def lines(shown: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(entry.title, entry.name, entry.look) for entry in shown["entries"]]


def test_a_call_and_its_reply_are_one_line(t: Translate) -> None:
    shown = page(
        t,
        ToolCalled("c1", "catalogue.search", {"text": "kettle"}),
        ToolAnswered("c1", [{"id": 7}], None, 0.0124),
        CALLED,
        ModelReplied(Purpose.ANSWER, "39.90", 400, 12, 0.25, 0.5, 2.0),
        Answered("39.90", [{"id": 7, "tags": ["a", "b"], "none": None}, "loose"]),
    )
    assert lines(shown)[2:] == [
        ("Tool call", "catalogue.search", "ok"),
        ("Model writes the answer", "default", "ok"),
        ("Answered", "", "ok"),
    ]
    tool, model, _ = shown["entries"][2:]
    assert tool.numbers == ["12ms"]
    assert [block.label for block in tool.blocks] == ["Arguments", "Result"]
    assert model.numbers == ["2.0s", "queued 250ms", "first token 500ms", "tokens 400 / 12"]
    assert shown["run"]["sources"] == [[("id", "7"), ("tags", "a, b")], [("", "loose")]]
    assert shown["run"]["finished"]
    assert not shown["cut"]


def test_what_goes_on_says_since_when(t: Translate) -> None:
    last = page(t, CALLED)["entries"][-1]
    assert (last.look, last.since) == ("busy", 1003.0)


def test_nothing_goes_on_after_the_end(t: Translate) -> None:
    for end, look in ((Killed("admin:li"), ""), (Failed("no engine", "unreachable"), "bad")):
        called, ended = page(t, CALLED, end)["entries"][-2:]
        assert (called.look, called.since) == (look, None)
        assert ended.look == "bad"


def test_another_host_cuts_a_call_off(t: Translate) -> None:
    called, claimed = page(t, CALLED, Claimed("server/2", 2))["entries"][-2:]
    assert (called.numbers, called.since) == (["cut off"], None)
    assert claimed.title == "Taken up"


def test_a_tool_that_failed_shows_its_error(t: Translate) -> None:
    entry = page(t, ToolCalled("c1", "greet", {}), ToolAnswered("c1", None, "TypeError: no"))["entries"][-1]
    assert (entry.look, entry.blocks[-1].text) == ("bad", "TypeError: no")


def test_the_place_for_the_text_of_an_answer_is_that_of_its_call(t: Translate) -> None:
    """Until its reply is known, or its host is another one."""
    reply = ModelReplied(Purpose.ANSWER, "x")
    first = page(t, CALLED)["run"]["call"]
    assert first > 0
    assert page(t)["run"]["call"] == page(t, CALLED, reply)["run"]["call"] == 0
    assert page(t, CALLED, Claimed("server/2", 2))["run"]["call"] == 0
    assert page(t, CALLED, Claimed("server/2", 2), CALLED)["run"]["call"] == first + 2
    assert page(t, ModelCalled(Purpose.TOOL, "m"))["run"]["call"] == 0


def test_a_long_log_is_cut_at_its_end(t: Translate) -> None:
    calls = [
        item
        for number in range(runs.MAX_ENTRIES)
        for item in (ToolCalled(f"c{number}", "f", {}), ToolAnswered(f"c{number}", number))
    ]
    shown = page(t, *calls)
    assert len(shown["entries"]) == shown["cut"] == runs.MAX_ENTRIES
    assert shown["entries"][-1].blocks[-1].text == str(runs.MAX_ENTRIES - 1)


def test_a_pause_leaves_the_call_under_way_alone(t: Translate) -> None:
    shown = page(t, CALLED, Paused("admin:li", reason="lunch"), Reniced(5, "admin:li"))
    assert shown["entries"][2].since is not None
    assert (shown["run"]["state"], shown["run"]["paused"], shown["run"]["priority"]) == (
        "paused",
        "admin:li: lunch",
        5,
    )
    shown = page(t, CALLED, Paused("admin:li"), ModelReplied(Purpose.ANSWER, "hi"), Resumed("admin:li"))
    assert lines(shown)[2:] == [
        ("Model writes the answer", "default", "ok"),
        ("Paused", "admin:li", "wait"),
        ("Resumed", "admin:li", ""),
    ]


def test_a_pause_that_stopped_the_call_cuts_it_off(t: Translate) -> None:
    shown = page(t, CALLED, Paused("admin:li", now=True))
    assert (shown["entries"][2].since, shown["entries"][2].numbers) == (None, ["cut off"])


def test_the_calls_of_a_program_and_how_it_ended(t: Translate) -> None:
    good = ModelUsed("c1", "talker", "succeeded", 11, 5, 0.0, 0.1, 0.5)
    bad = ModelUsed("c2", "talker", "failed", error="it is gone")
    assert lines(page(t, good, bad, Exited(3)))[2:] == [
        ("Model call", "talker", "ok"),
        ("Model call", "talker", "bad"),
        ("Program ended", "exit code 3", "bad"),
    ]
    assert lines(page(t, Exited()))[-1] == ("Program ended", "host lost", "bad")


def test_what_a_run_waits_for_is_said(t: Translate) -> None:
    log = events(CALLED)
    run = structs.replace(runlog.detail("r1", runlog.fold(log)), wait=Wait("talker", 3, "slots"))
    assert runs.page(run, log, t)["run"]["wait"] == "waits for a slot, place 3 at talker"

"""What `llmctl ask` prints of an answer that is written, cut off by a pause, and goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmagentos.api import runs
from llmagentos.api.runs import Purpose, RunDelta, RunEvent
from llmagentos.cli import watching
from llmagentos.core.errors import Unavailable

CALLED = runs.ModelCalled(Purpose.ANSWER, "m")
ANEW = RunDelta("own", "so it", begins=True)
REPLIED = runs.ModelReplied(Purpose.ANSWER, "so it is")


@pytest.mark.parametrize(
    ("items", "printed"),
    [
        ([CALLED, "so ", "it is", REPLIED, runs.Answered("so it is")], "so it is\n"),
        ([CALLED, "so ", runs.Paused("me"), runs.Claimed("h", 2), CALLED, "so ", "it", " is", REPLIED], "so it is"),
        ([CALLED, "so ", runs.Claimed("h", 2), CALLED, "so it is", REPLIED, runs.Answered("so it is")], "so it is\n"),
        ([CALLED, "so ", runs.Claimed("h", 2), CALLED, "no", REPLIED, runs.Answered("no")], "so \nno\n"),
        ([CALLED, "so", REPLIED, CALLED, "so", REPLIED, runs.Answered("so")], "so\nso\n"),
        ([CALLED, ANEW, " is", REPLIED, runs.Answered("so it is")], "so it is\n"),
        ([CALLED, "so ", ANEW, " is", REPLIED, runs.Answered("so it is")], "so it is\n"),
    ],
)
def test_no_text_is_printed_twice(items: list[Any], printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    printer = watching._Printer("own", quiet=False)
    for seq, item in enumerate(items, 1):
        piece = RunDelta("own", item) if isinstance(item, str) else item
        printer.show(piece if isinstance(piece, RunDelta) else RunEvent(seq, 1.5, piece))
    assert capsys.readouterr().out == printed


@pytest.mark.anyio
@pytest.mark.parametrize("away", [1, 2])
async def test_an_answer_is_printed_though_the_server_is_away_at_that_moment(
    away: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Away as the answer is looked up for who asked, or as the run is looked up at its end."""
    run = runs.Run("r1", "a", 1, "m", runs.RunState.SUCCEEDED, "Hi", 1.0, "admin:me", answer="so it is")
    looks = 0

    async def follow(*_: Any, after: int) -> AsyncIterator[RunEvent]:
        for seq, data in enumerate([CALLED, REPLIED, runs.Answered("so it is")], 1):
            if seq > after:
                yield RunEvent(seq, 1.5, data)

    async def get(*_: Any) -> runs.Run:
        nonlocal looks
        looks += 1
        if looks == away:
            raise Unavailable("away")
        return run

    monkeypatch.setattr(watching.api, "follow", follow)
    monkeypatch.setattr(watching.api, "get", get)
    nobody: Any = None
    assert await watching.watch(nobody, "r1", quiet=False) == run
    assert capsys.readouterr().out == "so it is\n"

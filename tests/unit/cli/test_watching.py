"""What `llmctl ask` prints of an answer that is written, cut off by a pause, and goes on."""

from __future__ import annotations

from typing import Any

import pytest

from llmagentos.api import runs
from llmagentos.api.runs import Purpose, RunDelta, RunEvent
from llmagentos.cli import watching

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

"""What `llmctl top` draws, and the keys it hears."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.llm import ModelInfo
from llmagentos.api.nodes import NodeSummary
from llmagentos.api.runs import RunState, RunSummary, Wait
from llmagentos.cli.output import fit
from llmagentos.cli.screen import keys
from llmagentos.cli.top import Picture, View, body

MODEL = ModelInfo("talker", "openai", "chat", "ready", [], 4, 3, 7, 100)
NODE = NodeSummary("web-1", "ready", 0.0, 0.0, "Debian", 2, 1, [0.5, 0.4, 0.3], 0, [], "0.1")


def run(name: str, tokens: int = 0, **more: object) -> RunSummary:
    given = {
        "agent": "helpdesk",
        "version": 1,
        "model": "m",
        "state": RunState.RUNNING,
        "input": "我的包裹在哪里？" * 9,
    }
    return RunSummary(name, **(given | {"created": 90.0, "created_by": "me", "tokens_out": tokens} | more))  # type: ignore[arg-type]


def picture(at: float, *runs: RunSummary) -> Picture:
    return Picture(at, list(runs), [MODEL], [NODE])


def test_what_is_drawn_fits_and_shows_use_queues_and_reasons() -> None:
    view = View(picture(100.0, run("r1", 100), run("r2")))
    view.renew(picture(102.0, run("r1", 300), run("r2", wait=Wait("talker", 2, "slots"), priority=-5)))
    lines = [click.unstyle(line) for line in body(view, width=100, height=20)]
    assert len(lines) <= 20
    assert all(line == fit(line, 100) for line in lines)
    shown = "\n".join(lines)
    for part in ("talker", "3/4", "web-1", "0.50", "talker #2", "helpdesk", "-5"):
        assert part in shown
    (first,) = [line for line in lines if line.startswith("r1")]
    assert first.split()[4:6] == ["300", "100"]  # 200 more tokens in 2 seconds


def test_the_choice_follows_its_run_and_the_list_scrolls() -> None:
    runs = [run(f"r{n}") for n in range(50)]
    view = View(picture(1.0, *runs))
    view.move(1)
    for _ in range(60):
        view.move(1)
    assert view.chosen == "r49"
    assert any("r49" in line for line in body(view, width=80, height=12))
    view.renew(picture(2.0, *reversed(runs)))
    assert view.index == 0
    view.renew(picture(3.0))
    assert (view.chosen, view.run) == (None, None)
    view.move(1)


@given(st.integers(20, 200), st.integers(6, 60), st.integers(0, 30))
def test_it_fits_whatever_the_size(width: int, height: int, count: int) -> None:
    view = View(picture(1.0, *[run(f"r{n}") for n in range(count)]))
    lines = list(body(view, width=width, height=height))
    assert len(lines) <= height
    assert all(line == fit(line, width) for line in lines)


@pytest.mark.parametrize(
    ("text", "pressed"),
    [
        ("q", ["q"]),
        ("+++", ["+", "+", "+"]),
        ("\x1b[A\x1b[Bq", ["up", "down", "q"]),
        ("\x1bOA", ["up"]),
        ("\x1b[5~", []),
        ("\x1b[1;5Cp", ["p"]),
        ("\x04", ["q"]),
        ("", []),
    ],
)
def test_keys(text: str, pressed: list[str]) -> None:
    assert keys(text) == pressed

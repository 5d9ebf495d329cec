"""What people read: spans, sizes, tables with wide characters; errors with their exit codes."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.cli import output
from llmagentos.core.errors import Conflict, InvalidInput, Unavailable


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "0 ms"), (0.85, "850 ms"), (0.9996, "1.0 s"), (3.24, "3.2 s"), (59.96, "1m 00s"), (245, "4m 05s"),
     (7800, "2h 10m"), (273600, "3d 4h")],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str) -> None:
    assert output.duration(seconds) == shown


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets this process's time zone, and puts the old one back."""

    def set_(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("UTC0", "2026-11-21 09:05:03+00:00"),
        ("CST-8", "2026-11-21 17:05:03+08:00"),
        ("IST-5:30", "2026-11-21 14:35:03+05:30"),
        ("NST3:30", "2026-11-21 05:35:03-03:30"),
    ],
)
def test_absolute_times_tell_their_zone(zone: Callable[[str], None], name: str, shown: str) -> None:
    zone(name)
    moment = 1795251903.25
    assert output.when(moment) == shown
    assert datetime.fromisoformat(shown).timestamp() == int(moment), "what is shown can be pasted where a time is read"
    assert output.when(moment, milliseconds=True) == f"{shown[:19]}.250{shown[19:]}"


def test_the_zone_is_that_of_the_time_and_not_todays(zone: Callable[[str], None]) -> None:
    zone("CET-1CEST,M3.5.0,M10.5.0/3")
    assert output.when(1782050703) == "2026-06-21 16:05:03+02:00"
    assert output.when(1795269903) == "2026-11-21 15:05:03+01:00"
    assert output.when(None) == "-"


def test_no_command_writes_a_time_itself() -> None:
    commands = Path(output.__file__).parent
    assert not [
        f"{file.name}: {word}"
        for file in commands.glob("*.py")
        for word in ("strftime", "fromtimestamp", "localtime", "isoformat")
        if word in file.read_text("utf-8")
    ]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 * 1024**2, "20 MiB"), (5 * 1024**4, "5.0 TiB")],
)
def test_sizes(count: float | None, shown: str) -> None:
    assert output.size(count) == shown


@given(st.text(max_size=60), st.integers(1, 30))
def test_short_text_fits_its_width(text: str, width: int) -> None:
    short = output.short(text, width)
    assert "\n" not in short
    assert output._width(short) <= width


def test_columns_line_up_with_chinese_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name", "state"], [("蓝色水壶", "ready"), ("lamp", "away")])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == "NAME      STATE"
    assert first == "蓝色水壶  ready"
    assert second == "lamp      away"


def test_no_rows_are_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name"], [], empty="Nothing.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Nothing.\n")


@pytest.mark.parametrize(
    ("error", "code", "first"),
    [
        (InvalidInput("x is wrong", hint="make it right"), 2, "error: x is wrong"),
        (Conflict("taken"), 2, "error: taken"),
        (Unavailable("away"), 1, "error: away"),
        (click.UsageError("no such option"), 2, "error: no such option"),
        (OSError(2, "No such file or directory", "x.yml"), 1, "error: [Errno 2] No such file or directory: 'x.yml'"),
        (ExceptionGroup("", [Unavailable("one"), InvalidInput("two")]), 2, "error: one"),
        (click.Abort(), 130, ""),
        (UnicodeEncodeError("utf-8", "x\udcff", 1, 2, "surrogates not allowed"), 2, "error: 'x?' is not UTF-8"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: Exception, code: int, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output.fail(error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == first


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.state("ready") == "ready"
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert output.state("ready") == "\x1b[32mready\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.state("ready") == "ready"

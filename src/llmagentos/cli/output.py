"""What commands print: data on stdout (tables, or JSON with `--json`), everything else on stderr.

Colours only on a terminal and without NO_COLOR (no-color.org).
"""

from __future__ import annotations

import functools
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from llmagentos.core import clock
from llmagentos.core.errors import LLMAgentOSError, ServiceError
from llmagentos.core.i18n import tr

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """`--json`: the command gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help=tr("Print JSON instead of a table."))(command)


def listing_group(help: str) -> Callable[[Callable[..., None]], click.Group]:
    """A group whose own function lists: it is called when no subcommand is, `llmctl jobs` beside `llmctl jobs show`."""

    def made(listing: Callable[..., None]) -> click.Group:
        @functools.wraps(listing)
        def without_subcommand(**options: Any) -> None:
            if click.get_current_context().invoked_subcommand is None:
                listing(**options)

        return click.group(help=help, invoke_without_command=True)(without_subcommand)

    return made


def emit(text: str = "", *, newline: bool = True) -> None:
    """Data, on stdout."""
    click.echo(text, nl=newline)


def emit_json(value: Any) -> None:
    """Any msgspec-encodable value as indented JSON on stdout."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def note(text: str, *, newline: bool = True) -> None:
    """Anything for the reader that is not the data, on stderr."""
    click.echo(text, err=True, nl=newline)


def warn(text: str) -> None:
    """A line that starts with `warning:` on stderr."""
    note(f"{paint('warning:', 'yellow', err=True)} {text}")


def paint(text: str, colour: str, *, bold: bool = False, err: bool = False) -> str:
    """`text` in `colour` when the stream it goes to is a terminal."""
    stream = sys.stderr if err else sys.stdout
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return click.style(text, fg=colour, bold=bold or None)


_STATES = {
    "green": "ok ready running up online succeeded healthy active",
    "red": "failed fail dead down error unreachable",
    "yellow": "warn away draining loading queued pending starting changed killed restarting paused",
}
_COLOUR_OF = {word: colour for colour, words in _STATES.items() for word in words.split()}


def state(word: str) -> str:
    """A state's name in its colour (the same word, the same colour everywhere)."""
    colour = _COLOUR_OF.get(word.lower())
    return paint(word, colour) if colour else word


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str | None = None) -> None:
    """Rows under their columns' names (already translated), aligned by display width.

    `empty` is said on stderr when there are none.
    """
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines and empty is not None:
        note(empty)
        return
    header = [column.upper() for column in columns]
    widths = [max(_width(line[i]) for line in [header, *lines]) for i in range(len(header))]
    for line in [header, *lines]:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Names (already translated) and values, one a line, values aligned."""
    shown = [(f"{name}:", str(value)) for name, value in pairs]
    width = max((_width(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name}{' ' * (width - _width(name))}  {value}".rstrip())


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two (Unicode TR 11)."""
    plain = click.unstyle(text)
    if plain.isascii():
        return len(plain)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in plain
    )


def duration(seconds: float | None) -> str:
    """A span of time for people: `850 ms`, `3.2 s`, `4m 05s`, `2h 10m`, `3d 4h`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"


def ago(moment: float | None) -> str:
    """How long ago the wall-clock time `moment` was; `-` for None."""
    return "-" if moment is None else tr("{time} ago", time=duration(max(0.0, time.time() - moment)))


def when(moment: float | None, *, milliseconds: bool = False) -> str:
    """A wall-clock time in the local zone, `2026-01-31 14:05:09+08:00`; `-` for None. No command writes one itself."""
    return "-" if moment is None else clock.local(moment, milliseconds=milliseconds)


def size(count: float | None) -> str:
    """Bytes for people: `512 B`, `1.5 KiB`, `20 MiB`; `-` for None."""
    if count is None:
        return "-"
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1023.5:
            return f"{count:.{0 if count >= 9.95 else 1}f} {unit}"
    return f"{count / 1024:.1f} TiB"


def short(text: str, width: int) -> str:
    """The start of `text` on one line, at most `width` columns."""
    return _cut(" ".join(text.split()), width)


def _cut(line: str, width: int) -> str:
    if _width(line) <= width:
        return line
    kept, used = "", 1
    for char in line:
        used += _width(char)
        if used > width:
            break
        kept += char
    return kept + "…"


def fit(text: str, width: int, *, pad: bool = False) -> str:
    """`text` cut to `width` columns, colours and all; with `pad` filled up to them with blanks."""
    wide = _width(text)
    if wide > width:
        text = _cut(click.unstyle(text), width)
        wide = _width(text)
    return text + " " * (width - wide) if pad else text


_SURROGATE = re.compile("[\udc80-\udcff]")
"""What Python makes of a byte of an argument that is not UTF-8 (PEP 383)."""


def fail(error: Exception) -> int:
    """Say `error` on stderr as `error:` and `hint:` lines; the exit code that belongs to it."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        note("")
        return 130
    if isinstance(error, BrokenPipeError):
        # The reader (head, less) is gone: keep the interpreter from flushing into the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, LLMAgentOSError):
        remote = error.remote_type if isinstance(error, ServiceError) else None
        _say(f"{remote}: {error.message}" if remote not in (None, error.message) else error.message, error.hint)
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and error.ctx is not None:
        note(error.ctx.get_help())
        return error.exit_code
    if isinstance(error, click.ClickException):
        message, _, hint = error.format_message().partition("\n")
        usage = f"{error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else None
        _say(message, hint or (tr("see `{command}`", command=usage) if usage else None))
        return error.exit_code
    if isinstance(error, BaseExceptionGroup):
        return max(fail(inner) for inner in error.exceptions if isinstance(inner, Exception))
    if isinstance(error, OSError):
        _say(str(error), None)
        return 1
    if isinstance(error, UnicodeEncodeError) and _SURROGATE.search(error.object):
        given = error.object[:200].encode("utf-8", "replace").decode()
        _say(tr("{argument} is not UTF-8", argument=repr(given)), None)
        return 2
    raise error  # a defect of ours: the traceback is the report


def _say(message: str, hint: str | None) -> None:
    note(f"{paint('error:', 'red', bold=True, err=True)} {message}")
    if hint:
        note(f"{paint('hint:', 'cyan', err=True)} {hint}")

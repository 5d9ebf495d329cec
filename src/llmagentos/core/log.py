"""Structured logs: JSON lines on stderr (or for people, on a terminal), with run, job and trace ids.

`bind(run_id=...)` puts fields on every line of the current task. Secrets never reach a log: callers
log names, not values, and `_redact` drops the fields that are secrets by name.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_SECRET = frozenset({"token", "password", "secret", "authorization", "api_key", "cookie"})


if not structlog.is_configured():
    # In a program that only uses the SDK nobody calls `configure`: warnings on stderr, and nothing else.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def get(name: str) -> FilteringBoundLogger:
    """The logger of a room: `log = get(__name__)`."""
    logger: FilteringBoundLogger = structlog.get_logger(room=name)
    return logger


@contextmanager
def bind(**fields: str) -> Iterator[None]:
    """Put `fields` (run_id, job_id, node, ...) on every line logged inside the block."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def bound(name: str) -> Any:
    """The value that `bind` put on the lines of this task; None without one."""
    return structlog.contextvars.get_contextvars().get(name)


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name in _SECRET & event.keys():
        event[name] = "[redacted]"
    return event


def _hiding(hide: Callable[[str], str]) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    def process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {name: hide(value) if isinstance(value, str) else value for name, value in event.items()}

    return process


def _trace_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event


class _Stream:
    """Where lines go. A full disk must not fail the work that is logged: such lines are lost."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def write(self, text: str) -> int:
        try:
            written: int = self._out.write(text)
        except OSError:
            return 0
        return written

    def flush(self) -> None:
        with suppress(OSError):
            self._out.flush()


def configure(
    *, process: str, level: str = "info", stream: Any = None, hide: Callable[[str], str] | None = None
) -> None:
    """Set up logging for this process; `process` (server, engine, node, module) is on every line.

    `hide` takes out of texts what must not be logged.
    """
    out = stream or sys.stderr
    structlog.contextvars.bind_contextvars(process=process)
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if out.isatty() else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _trace_ids,
            _redact,
            structlog.processors.format_exc_info,
            *([_hiding(hide)] if hide is not None else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stream(out))),
        cache_logger_on_first_use=True,
    )

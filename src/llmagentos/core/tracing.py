"""Spans, their context on the wire (W3C Trace Context), and their export by OTLP when configured.

Without `configure` a span costs one attribute look-up: rooms call `span` freely. Names and
attributes of LLM spans follow OpenTelemetry's GenAI conventions (`{operation} {model}`,
`gen_ai.operation.name`, ...).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from llmagentos.core.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SERVER = "server"
CLIENT = "client"
INTERNAL = "internal"


class _Tracing:
    """The process's tracer; None until `configure`."""

    tracer: Any = None
    shutdown: Any = None


def enabled() -> bool:
    """Whether spans are recorded in this process."""
    return _Tracing.tracer is not None


def span(
    name: str, *, kind: str = INTERNAL, parent: Mapping[str, str] | None = None, **attributes: Any
) -> AbstractContextManager[Span | None]:
    """A span around a block; yields it to add attributes, or None when tracing is off.

    `parent` is a mapping with a `traceparent` header of the caller. Dots in attribute names are
    written as double underscores: `gen_ai__operation__name="chat"`.
    """
    if _Tracing.tracer is None:
        return nullcontext()
    return _recorded(name, kind, parent, attributes)


@contextmanager
def _recorded(name: str, kind: str, parent: Mapping[str, str] | None, attributes: dict[str, Any]) -> Iterator[Span]:
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    with _Tracing.tracer.start_as_current_span(
        name,
        context=extract(parent) if parent is not None else None,
        kind=SpanKind[kind.upper()],
        attributes={key.replace("__", "."): value for key, value in attributes.items() if value is not None},
    ) as recorded:
        yield recorded


def begin(name: str, *, kind: str = INTERNAL, **attributes: Any) -> Span | None:
    """A span that its caller ends; a child of the current one, but never the current one itself.

    For what an async generator does: between its steps the current span is its consumer's.
    """
    if _Tracing.tracer is None:
        return None
    from opentelemetry.trace import SpanKind

    started: Span = _Tracing.tracer.start_span(
        name,
        kind=SpanKind[kind.upper()],
        attributes={key.replace("__", "."): value for key, value in attributes.items() if value is not None},
    )
    return started


def inject(headers: MutableMapping[str, str]) -> None:
    """Add the current span's `traceparent` to `headers` when there is one."""
    if _Tracing.tracer is not None:
        from opentelemetry.propagate import inject as put

        put(headers)


def configure(*, process: str, endpoint: str) -> None:
    """Export this process's spans to `endpoint` (OTLP over HTTP, e.g. `http://127.0.0.1:4318`).

    Export runs in batches on its own thread with a bounded queue: when the collector is away spans
    are dropped and counted by the SDK, never waited for. Raises `ConfigError` without the `otlp` extra.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(
            f"telemetry.otlp is {endpoint!r}, but the OTLP exporter is not installed",
            hint="pip install 'llmagentos[otlp]'",
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": f"llmagentos-{process}"}))
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4096))
    _Tracing.tracer = provider.get_tracer("llmagentos")
    _Tracing.shutdown = provider.shutdown


def shutdown() -> None:
    """Send what is still queued and stop recording."""
    if _Tracing.shutdown is not None:
        _Tracing.shutdown()
        _Tracing.tracer = _Tracing.shutdown = None

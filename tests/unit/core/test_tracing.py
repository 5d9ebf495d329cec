"""Spans reach a collector over OTLP/HTTP: a real HTTP server decodes what a real exporter sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmagentos.core import tracing


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_off_by_default() -> None:
    headers: dict[str, str] = {}
    with tracing.span("chat x") as span:
        tracing.inject(headers)
    assert span is None
    assert headers == {}
    assert not tracing.enabled()


def test_spans_are_exported_with_their_parent() -> None:
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers: dict[str, str] = {}
    with collector() as (endpoint, got):
        tracing.configure(process="test", endpoint=endpoint)
        try:
            with tracing.span(
                "chat m",
                kind=tracing.SERVER,
                parent={"traceparent": f"00-{trace_id}-{parent_id}-01"},
                gen_ai__operation__name="chat",
                absent=None,
            ):
                tracing.inject(headers)
        finally:
            tracing.shutdown()
    spans = [s for request in got for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    assert [s.name for s in spans] == ["chat m"]
    assert spans[0].trace_id.hex() == trace_id
    assert spans[0].parent_span_id.hex() == parent_id
    assert {a.key: a.value.string_value for a in spans[0].attributes} == {"gen_ai.operation.name": "chat"}
    assert headers["traceparent"].split("-")[1] == trace_id


def test_a_failed_block_marks_the_span() -> None:
    with collector() as (endpoint, got):
        tracing.configure(process="test", endpoint=endpoint)
        try:
            with pytest.raises(ZeroDivisionError), tracing.span("bad"):
                1 / 0  # noqa: B018
        finally:
            tracing.shutdown()
    assert got[0].resource_spans[0].scope_spans[0].spans[0].status.code == 2

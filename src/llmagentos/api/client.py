"""The typed client of the server's API: JSON in and out, errors as our own classes, SSE streams."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from llmagentos.api import problem
from llmagentos.api.http import HttpClient, Response

T = TypeVar("T")

SILENT_S = 35.0
"""A stream of events on which nothing came for so long is dead: servers send a comment every 10 s."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event (WHATWG HTML, section 9.2): its type, data (JSON text) and id."""

    event: str
    data: str
    id: str | None = None

    def decode(self, kind: type[T]) -> T:
        """The data as `kind`."""
        return msgspec.json.decode(self.data, type=kind)


class ApiClient:
    """Calls `server` (an origin, e.g. `http://127.0.0.1:7080`) as the holder of `token`."""

    def __init__(self, server: str, token: str, *, tls: ssl.SSLContext | None = None, timeout: float = 30.0) -> None:
        self.server = server.rstrip("/")
        self.tls = tls
        self._authorization = {"Authorization": f"Bearer {token}"}
        self._http = HttpClient(tls=tls)
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get(
        self, path: str, kind: type[T], *, query: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> T:
        """GET `path` and decode the answer as `kind`."""
        return _decode(await self._send("GET", _with(path, query), None, timeout), kind)

    async def post(
        self,
        path: str,
        body: Any,
        kind: type[T],
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """POST `body` as JSON, with `headers` beside the usual ones, and decode the answer as `kind`."""
        return _decode(await self._send("POST", path, msgspec.json.encode(body), timeout, headers=headers), kind)

    async def put(self, path: str, body: Any, kind: type[T], *, timeout: float | None = None) -> T:
        """PUT `body` as JSON and decode the answer as `kind`."""
        return _decode(await self._send("PUT", path, msgspec.json.encode(body), timeout), kind)

    async def delete(self, path: str, *, timeout: float | None = None) -> None:
        """DELETE `path`."""
        await self._send("DELETE", path, None, timeout)

    async def upload(self, path: str, content: bytes, kind: type[T], *, timeout: float | None = None) -> T:
        """PUT raw bytes and decode the answer as `kind`."""
        return _decode(await self._send("PUT", path, content, timeout, "application/octet-stream"), kind)

    async def download(self, path: str, *, timeout: float | None = None) -> bytes:
        """GET raw bytes."""
        return (await self._send("GET", path, None, timeout)).body

    async def text(self, path: str, *, timeout: float | None = None) -> str:
        """GET text."""
        return (await self.download(path, timeout=timeout)).decode()

    @asynccontextmanager
    async def events(
        self, path: str, *, query: Mapping[str, Any] | None = None, last_event_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        """Follow a stream: `async with client.events(path) as events: async for event in events: ...`."""
        headers = self._authorization | {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        async with self._http.stream(
            "GET", self.server, _target(_with(path, query)), headers=headers, timeout=self._timeout
        ) as response:
            if response.status >= 400:
                raise problem.decode(response.status, await response.read())
            yield parse_events(response.iter_lines(idle_timeout=SILENT_S))

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        timeout: float | None,
        content_type: str = "application/json",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        all_headers = self._authorization | ({"Content-Type": content_type} if body is not None else {})
        response = await self._http.request(
            method,
            self.server,
            _target(path),
            headers=all_headers | dict(headers or {}),
            body=body,
            timeout=self._timeout if timeout is None else timeout,
        )
        if response.status >= 400:
            raise problem.decode(response.status, response.body)
        return response


async def parse_events(lines: AsyncIterator[str]) -> AsyncIterator[ServerEvent]:
    """Server-sent events out of lines; comments (keep-alives) are skipped."""
    event, data, last_id = "message", list[str](), None
    async for line in lines:
        if not line:
            if data:
                yield ServerEvent(event, "\n".join(data), last_id)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value


def _decode(response: Response, kind: type[T]) -> T:
    if kind is type(None):
        return None
    if response.status == HTTPStatus.NO_CONTENT:  # there is none: a fault for who must have one
        return msgspec.convert(None, kind)
    return msgspec.json.decode(response.body, type=kind)


def _target(path: str) -> str:
    """`path` as it may be sent: names in it may be in any language. What is encoded already stays as it is."""
    return quote(path, safe="/?&=%:@!$'()*+,;~", errors="surrogateescape")


def _with(path: str, query: Mapping[str, Any] | None) -> str:
    given = {k: v for k, v in (query or {}).items() if v is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path

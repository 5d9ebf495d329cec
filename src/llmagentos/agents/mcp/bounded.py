"""HTTP answers of strangers, no longer than they may be."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of an answer that is one document; events of a stream are bounded one by one by the package."""


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """As its base, but an answer longer than `MAX_ANSWER` ends in a `ReadError`."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, its stream counted."""
        response = await super().handle_async_request(request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Counted(response.stream)
        return response


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MAX_ANSWER:
                raise httpx2.ReadError(f"the answer is longer than {MAX_ANSWER} bytes")
            yield chunk

    async def aclose(self) -> None:
        """End the stream."""
        await self._inner.aclose()

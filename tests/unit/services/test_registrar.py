"""An instance stays registered, and leaves no trace when it is told to stop at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from llmagentos.api.registry import Registered, Registration
from llmagentos.api.tokens import Keys
from llmagentos.core.discovery import Credentials
from llmagentos.services.link import ServerLink
from llmagentos.services.registrar import Registrar
from support.listening import listening

Answer = Callable[[str], Awaitable[tuple[int, bytes]]]
REGISTERED = 200, msgspec.json.encode(Registered("i1", 30.0, Keys([])))
GONE = 204, b""
WAIT_S = 40.0


@asynccontextmanager
async def registrar(answer: Answer) -> AsyncIterator[Registrar]:
    """One whose server answers each request ("post /path") as `answer` says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                lengths = [int(line.removeprefix("content-length:")) for line in head if line.startswith("content-l")]
                await reader.readexactly(sum(lengths))
                status, body = await answer(head[0].removesuffix(" http/1.1"))
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        except (EOFError, ConnectionError):
            return
        finally:
            writer.close()

    async with listening(serve) as url:
        link = ServerLink(lambda: Credentials(url, "t"))
        yield Registrar(link, lambda: Registration("a", "1", "http://127.0.0.1:1"), lambda _: None)
        await link.aclose()


@pytest.mark.parametrize("again", [False, True])
def test_one_that_stops_while_it_registers_is_not_left_behind(again: bool) -> None:
    """The server may have registered it already, and would go on sending callers to it."""

    async def main() -> None:
        asked, told, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def answer(request: str) -> tuple[int, bytes]:
            if request.startswith("delete"):
                assert request == "delete /api/v1/registry/instances/i1"
                left.set()
                return GONE
            if request.startswith("post") and not request.endswith("drain"):
                asked.set()
                await told.wait()
                return REGISTERED
            return GONE

        async with asyncio.timeout(WAIT_S), registrar(answer) as one:
            task = asyncio.create_task(one.keep() if again else one.first())
            await asked.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            leaving = asyncio.create_task(one.leave())
            await asyncio.sleep(0)
            told.set()
            await leaving
            assert left.is_set()

    asyncio.run(main())


def test_a_server_that_never_answers_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmagentos.services.registrar._QUICK_S", 0.05)

    async def main() -> None:
        asked = asyncio.Event()

        async def answer(_: str) -> tuple[int, bytes]:
            asked.set()
            await asyncio.Event().wait()
            return GONE

        async with asyncio.timeout(WAIT_S), registrar(answer) as one:
            task = asyncio.create_task(one.first())
            await asked.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.leave()

    asyncio.run(main())


def test_a_renewal_that_failed_is_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the lease later it would be too late: the try itself may take a third, and so did the wait before."""
    slept: list[float] = []
    really = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await really(0)

    async def main() -> None:
        renewals = 0
        enough = asyncio.Event()

        async def answer(request: str) -> tuple[int, bytes]:
            nonlocal renewals
            if request.startswith("post"):
                return REGISTERED
            renewals += 1
            if renewals == 4:
                enough.set()
            return (503, b"") if renewals < 3 else GONE

        async with asyncio.timeout(WAIT_S), registrar(answer) as one:
            await one.first()
            monkeypatch.setattr(asyncio, "sleep", sleep)
            task = asyncio.create_task(one.keep())
            await enough.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert [seconds == 10.0 for seconds in slept[:4]] == [True, False, False, True]
    assert max(slept[1:3]) < 1.0

"""The moments around a job's end on its node: what may hold secrets is gone afterwards, whatever comes between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from copy import copy
from pathlib import Path

from support.listening import listening
from support.node import NodeProcess, ended, submit
from support.server import ServerProcess, eventually

SPANNING = """\
- hosts: all
  gather_facts: false
  serial: 1
  tasks:
    - {command: "echo {{ password }}", register: said}
"""
HELD_S = 1.0


@asynccontextmanager
async def answers_to_ends_held(server: ServerProcess, until: asyncio.Event) -> AsyncIterator[ServerProcess]:
    """The server at another address, where the answer to the end of a job does not come before `until`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        held = False

        async def asked() -> None:
            nonlocal held
            while data := await reader.read(65536):
                held = held or b"/finish HTTP/" in data
                back.write(data)

        async def answered() -> None:
            while data := await there.read(65536):
                if held:
                    await until.wait()
                writer.write(data)

        both = [asyncio.create_task(asked()), asyncio.create_task(answered())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for stream in (back, writer):
                stream.close()
                with suppress(ConnectionError):
                    await stream.wait_closed()

    async with listening(serve) as url:
        slow = copy(server)
        slow.url = url
        yield slow


def left(node: NodeProcess, number: int) -> list[str]:
    """What of a job is still on its node that may hold secrets; `[""]` when its end is not settled there."""
    directory = node.state / "jobs" / str(number)
    if not (directory / "reported").exists():
        return [""]
    return sorted(name for name in ("spec.json", "shares.jsonl", "peers.jsonl") if (directory / name).exists())


def test_other_calls_of_the_job_are_answered_before_its_end_is(server: ServerProcess, tmp_path: Path) -> None:
    """The node hears that its lease is over before it hears that this was its own doing."""

    async def main() -> None:
        until = asyncio.Event()
        async with answers_to_ends_held(server, until) as slow, server.client() as client:
            nodes = []
            try:
                for name in "ab":
                    (tmp_path / name).mkdir()
                    nodes.append(await NodeProcess(tmp_path / name, slow, name).join())
                number = await submit(client, {"site.yml": SPANNING}, extra_vars={"password": "x"})
                assert (await ended(client, number)).summary.state == "succeeded"
                await asyncio.sleep(HELD_S)  # other answers have come
                until.set()
                await eventually(lambda: all(left(node, number) == [] for node in nodes))
                assert not any("lease lost" in node.log() for node in nodes)
            finally:
                for node in nodes:
                    node.stop()

    asyncio.run(main())


def test_a_node_agent_is_killed_after_it_has_told_the_end(server: ServerProcess, tmp_path: Path) -> None:
    async def main() -> None:
        async with answers_to_ends_held(server, asyncio.Event()) as slow, server.client() as client:
            node = await NodeProcess(tmp_path, slow, "a").join()
            number = await submit(client, {"site.yml": SPANNING}, extra_vars={"password": "x"})
            assert (await ended(client, number)).summary.state == "succeeded"
            node.kill()
            assert left(node, number) == [""]
        node.server = server
        node.start()
        try:
            async with server.client() as client:
                following = await submit(client, {"site.yml": SPANNING}, extra_vars={"password": "y"})
                assert (await ended(client, following)).summary.state == "succeeded"
            await eventually(lambda: left(node, number) == left(node, following) == [])
        finally:
            node.stop()

    asyncio.run(main())

"""What nodes of a job tell each other, over the real API: one order, once each, to the job's nodes alone."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from llmagentos.api import jobs, plays
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import InventorySource, JobRequest, NodeJob
from llmagentos.cli.pack import pack
from llmagentos.core.errors import CallerError, Conflict
from llmagentos.fleet.node.exchange import Exchange
from llmagentos.fleet.node.fetched import FetchedFiles
from llmagentos.fleet.node.jobdir import JobDirectory
from support.server import ServerProcess, StartServer, eventually

PLAY = "- hosts: all\n  serial: 1\n  tasks:\n    - command: uptime\n"


async def begun(server: ServerProcess, stack: AsyncExitStack, join: object, directory: Path) -> list[tuple]:
    """A job on the nodes `a` and `b`, claimed by both: their clients and what they were given."""
    (directory / "site.yml").write_text(PLAY)
    digest, content = pack(directory)
    nodes = [await stack.enter_async_context(join(server, name)) for name in "ab"]
    admin = await stack.enter_async_context(server.client())
    await jobs.upload_bundle(admin, digest, content)
    await jobs.submit(admin, JobRequest(digest, "site.yml", [InventorySource("hosts", "a\nb\n")]))
    return [(node.client, await node.claimed()) for node in nodes]


def told(client: ApiClient, job: NodeJob, *words: str, first: int = 1) -> object:
    return plays.share(client, job.job, job.fence, first, [{"word": word} for word in words])


def test_one_order_for_all_and_each_share_once(server: ServerProcess, join: object, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            (a, for_a), (b, for_b) = await begun(server, stack, join, tmp_path)
            assert for_a.inventory.span is not None
            assert (for_a.inventory.span.nodes, for_a.inventory.span.lead) == (["a", "b"], "a")
            assert (await told(a, for_a, "one", "two")).next_seq == 3
            assert (await told(b, for_b, "three")).next_seq == 2
            assert (await told(a, for_a, "one", "two", "four")).next_seq == 4, "said again"
            assert (await told(a, for_a, "lost", first=9)).next_seq == 4, "some are missing"
            seen = [
                await plays.shared(client, job.job, job.fence, after=0, gone=0)
                for client, job in ((a, for_a), (b, for_b))
            ]
            assert [(s.id, s.node, s.share["word"]) for s in seen[0].shares] == [
                (1, "a", "one"),
                (2, "a", "two"),
                (3, "b", "three"),
                (4, "a", "four"),
            ]
            assert seen[0] == seen[1]
            waiting = asyncio.create_task(plays.shared(b, for_b.job, for_b.fence, after=4, gone=0, wait=10))
            await jobs.finish(a, for_a.job, jobs.Finish(for_a.fence, "interrupted", 1, None, "it died"))
            assert (await waiting).gone == {"a": "it died"}
            with pytest.raises(Conflict):
                await told(a, for_a, "five", first=4)

    asyncio.run(main())


def test_only_for_who_holds_the_job(server: ServerProcess, join: object, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            (a, for_a), _ = await begun(server, stack, join, tmp_path)
            other = await stack.enter_async_context(join(server, "c"))
            for client, fence in ((other.client, for_a.fence), (a, for_a.fence + 1000), (a, 0)):
                with pytest.raises(CallerError):
                    await plays.share(client, for_a.job, fence, 1, [{"word": "x"}])
                with pytest.raises(CallerError):
                    await plays.shared(client, for_a.job, fence, after=0, gone=0, wait=0)

    asyncio.run(main())


def test_the_node_agent_goes_on_where_another_one_stopped(
    start_server: StartServer, join: object, tmp_path: Path
) -> None:
    """Its two files say how far it was, even with half a line at their end; the server may be away for a while."""
    server = start_server()
    directory = JobDirectory(tmp_path / "job")
    directory.root.mkdir()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            (tmp_path / "play").mkdir()
            (a, for_a), (b, for_b) = await begun(server, stack, join, tmp_path / "play")
            directory.shares.write_bytes(b'{"word":"one"}\n{"word":"tw')
            running = asyncio.create_task(Exchange(a, for_a, directory, FetchedFiles(a, for_a, directory)).run())
            await told(b, for_b, "three")
            await eventually(lambda: directory.peers.exists() and directory.peers.read_bytes().count(b"\n") == 2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            with directory.shares.open("ab") as shares:
                shares.write(b'o"}\n')
            with directory.peers.open("ab") as peers:
                peers.write(b'{"id":3,"fr')
            server.kill()
            server.start()
            running = asyncio.create_task(Exchange(a, for_a, directory, FetchedFiles(a, for_a, directory)).run())
            await eventually(lambda: directory.peers.read_bytes().count(b"\n") == 3)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            lines = directory.peers.read_text().splitlines()
            assert sorted(line.split('"word":"')[1][:-3] for line in lines) == ["one", "three", "two"]

    asyncio.run(main())


def test_a_job_that_has_begun_elsewhere_goes_before_all_others(
    server: ServerProcess, join: object, tmp_path: Path
) -> None:
    """Its nodes wait for each other: with any other order two such jobs could wait for each other for ever."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            (tmp_path / "site.yml").write_text(PLAY)
            digest, content = pack(tmp_path)
            a, b = [await stack.enter_async_context(join(server, name)) for name in "ab"]
            admin = await stack.enter_async_context(server.client())
            await jobs.upload_bundle(admin, digest, content)
            both = [InventorySource("hosts", "a\nb\n")]
            first = (await jobs.submit(admin, JobRequest(digest, "site.yml", both))).summary.id
            urgent = [
                (await jobs.submit(admin, JobRequest(digest, "site.yml", both, priority=50, limit=limit))).summary.id
                for limit in ("b", None)
            ]
            assert (await a.claimed()).job == urgent[1], "nothing had begun"
            assert (await b.claimed()).job == urgent[1], "it has begun on a"
            late = (await jobs.submit(admin, JobRequest(digest, "site.yml", both, priority=90))).summary.id
            for node in (a, b):
                job = await node.claimed()
                await jobs.finish(node.client, job.job, jobs.Finish(job.fence, "succeeded", 0))
            assert (await a.claimed()).job == late
            assert (await b.claimed()).job == late
            assert first < min(urgent)

    asyncio.run(main())

"""A server with more connections than it may have, or than it may open files: nodes come again, nothing is lost."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from llmagentos.api.http import HttpClient, Response
from llmagentos.core.errors import LLMAgentOSError
from support.node import NodeProcess, ended, submit
from support.server import ServerProcess

PATIENCE_S = 40.0
PLAYBOOK = "- hosts: all\n  gather_facts: false\n  tasks: [{ping: }]\n"


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def crowd(server: ServerProcess, count: int) -> Iterator[list[socket.socket]]:
    """So many connections on which nobody says anything."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((server.host, server.port), timeout=30)) for _ in range(count)
        ]


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Callable[[ServerProcess], NodeProcess]]:
    made: list[NodeProcess] = []

    def join(server: ServerProcess) -> NodeProcess:
        directory = tmp_path / "web1"
        directory.mkdir()
        made.append(NodeProcess(directory, server, "web1"))
        asyncio.run(made[-1].join())
        return made[-1]

    yield join
    for node in made:
        if node.process is not None and node.process.poll() is None:
            node.stop()


async def asked(server: ServerProcess) -> Response:
    client = HttpClient()
    try:
        headers = {"Authorization": f"Bearer {server.token}"}
        return await client.request("GET", server.url, "/api/v1/nodes", headers=headers, timeout=30)
    finally:
        await client.aclose()


def works(server: ServerProcess, node: NodeProcess) -> None:
    async def main() -> str:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                async with server.client() as admin:
                    return (await ended(admin, await submit(admin, {"site.yml": PLAYBOOK}))).summary.state
            except LLMAgentOSError:  # it has not seen yet that the others are gone
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)

    assert node.process is not None
    assert node.process.poll() is None, node.log()
    assert asyncio.run(main()) == "succeeded", node.log()


def test_over_the_limit_of_connections_nodes_are_told_to_come_again(start_server, joined):
    server = start_server("server: {limits: {connections: 12}}\n")
    node = joined(server)
    with crowd(server, 20):
        answer = asyncio.run(asked(server))
        assert answer.status == 503
        assert (answer.headers["retry-after"], answer.headers["content-type"]) == ("5", "application/problem+json")
        assert b"server.limits.connections" in answer.body
        until(lambda: "server away" in node.log(), "the node is told as well")
    works(server, node)


def test_without_files_to_open_the_server_lives_on(start_server, joined):
    server = start_server()
    node = joined(server)
    assert server.process is not None
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    now = psutil.Process(pid).num_fds()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (now + 6, before[1]))
    with crowd(server, 30) as silent:
        # One of them more than it may open is enough; what it could not take it lets go, or leaves waiting.
        until(lambda: psutil.Process(pid).num_fds() >= now + 4, "it has taken what it may")
        until(lambda: asyncio.run(refused(server)), "there is no room for more")
        assert server.process.poll() is None
        assert silent
    until(lambda: psutil.Process(pid).num_fds() < now + 4, "what the others held is given back")
    works(server, node)


async def refused(server: ServerProcess) -> bool:
    """Whether a caller gets no answer; the node may just have given a connection back, which is then free for one."""
    async with server.client(timeout=2.0) as admin:
        try:
            await admin.get("/api/v1/nodes", list)
            await admin.get("/api/v1/jobs", list)
        except LLMAgentOSError:
            return True
        return False

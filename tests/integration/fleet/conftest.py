"""A fake node: the node's side of the API with a client, and no machine behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.api.vault import VARIABLES
from llmagentos.cli.pack import pack
from llmagentos.core.sealing import unseal
from llmagentos.fleet.node import keys
from support.postgres import Postgres
from support.server import ServerProcess

PLAYBOOK = """\
- hosts: all
  tasks:
    - name: Say it
      command: echo hello
"""


class FakeNode:
    """What a node agent says; it runs nothing."""

    def __init__(self, client: ApiClient, name: str, token: str, key: keys.PrivateKey) -> None:
        self.client = client
        self.key = key
        self.name = name
        self.token = token

    async def claim(self, *, wait: float = 5.0) -> jobs.NodeJob | None:
        return (await jobs.claim(self.client, wait=wait)).job

    async def claimed(self, *, wait: float = 40.0) -> jobs.NodeJob:
        job = await self.claim(wait=wait)
        assert job is not None
        return job

    def secrets(self, job: jobs.NodeJob) -> dict[str, object]:
        """What was sealed to this node's key."""
        [box] = job.inventory.sealed_variables[self.name]
        return msgspec.json.decode(unseal(self.key, box, VARIABLES), type=dict[str, object])

    def events(self, first: int, count: int) -> list[jobs.JobEvent]:
        return [
            jobs.TaskResult(seq=seq, at=time.time(), host=self.name, task=f"task {seq}", status="ok")
            for seq in range(first, first + count)
        ]

    async def work(self, job: jobs.NodeJob, *, status: jobs.HostEnd = "succeeded", code: int = 0) -> None:
        await jobs.send_events(self.client, job.job, job.fence, self.events(job.next_seq, 3))
        await jobs.finish(self.client, job.job, jobs.Finish(job.fence, status, code, jobs.Stats(ok=3)))


Join = Callable[[ServerProcess, str], AbstractAsyncContextManager[FakeNode]]


@asynccontextmanager
async def joined(server: ServerProcess, name: str) -> AsyncIterator[FakeNode]:
    async with server.client() as admin:
        made = await admin.post("/api/v1/tokens", TokenRequest("join", name), NewToken)
    async with server.client(made.token) as joining:
        key = keys.generate()
        request = nodes.Join(name, f"{name}.example", "0.1", keys.request(key, name))
        answer = await nodes.join(joining, request)
    async with server.client(answer.token) as client:
        await nodes.put_facts(client, nodes.Facts(hostname=name, version="0.1", os="Debian 12", cpus=2))
        await nodes.beat(client, nodes.Heartbeat(load=[0.1, 0.2, 0.3], time=time.time()))
        yield FakeNode(client, name, answer.token, key)


@pytest.fixture
def join() -> Join:
    return joined


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., object]:
    async def send(
        client: ApiClient, playbook: str = PLAYBOOK, *, files: Mapping[str, str] | None = None, **more: object
    ) -> jobs.Job:
        directory = tmp_path / "playbook"
        directory.mkdir(exist_ok=True)
        for name, text in {"site.yml": playbook, **(files or {})}.items():
            (directory / name).write_text(text)
        digest, content = pack(directory)
        await jobs.upload_bundle(client, digest, content)
        return await jobs.submit(client, jobs.JobSpec(bundle=digest, playbook="site.yml", **more))  # type: ignore[arg-type]

    return send


@pytest.fixture
def two_servers(postgres: Postgres, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Two servers on one PostgreSQL, each with its own state."""
    database = postgres.create()
    made = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        made.append(ServerProcess(directory, database=database))
        made[-1].start()
    yield made
    for server in made:
        if server.process is not None and server.process.poll() is None:
            server.stop()

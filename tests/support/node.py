"""A real node agent in a process of its own, and jobs for it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job, JobSpec
from llmagentos.api.nodes import NodeSummary
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.fleet.node import keys
from support.server import END_S, ServerProcess

READY_S = 60.0


def join_request(name: str, hostname: str = "", *, place: str = "") -> nodes.Join:
    """What a machine that wants to be the node `name` says; its key is thrown away."""
    return nodes.Join(name, hostname or f"{name}.example", "0.1", keys.request(keys.generate(), name), place)


class Key:
    """A node's key and what can be proved with it, without a node agent."""

    def __init__(self, name: str, credential: keys.Credential) -> None:
        self.name = name
        self.credential = credential
        self.counter = 0

    @classmethod
    async def join(cls, server: ServerProcess, admin: ApiClient, name: str, directory: Path) -> Key:
        """A new node; its key goes into a file of `directory`."""
        made = await admin.post("/api/v1/tokens", TokenRequest("join", name), NewToken)
        key = keys.generate()
        request = nodes.Join(name, name, "0.1", keys.request(key, name), "first")
        async with server.client(made.token) as joining:
            joined = await nodes.join(joining, request)
        path = directory / f"{name}.pem"
        path.write_bytes(keys.pem(key, joined.certificate))
        return cls(name, keys.Credential(path))

    def assertion(self, *, place: str = "first", counter: int | None = None, off: float = 0.0) -> str:
        """A proof with the next number, or another one; `off` seconds by the node's clock."""
        self.counter = counter if counter is not None else self.counter + 1
        return self.credential.assertion(self.name, counter=self.counter, place=place, now=time.time() + off)

    async def exchange(self, server: ServerProcess, **how: Any) -> str:
        """The token for a proof."""
        async with server.client(self.assertion(**how)) as client:
            return (await nodes.exchange(client)).token


class NodeProcess:
    """A node agent, which can be killed and started again on the same state."""

    def __init__(self, directory: Path, server: ServerProcess, name: str, *, inside: Sequence[str] = ()) -> None:
        """`inside`: what goes before its command, to run it elsewhere."""
        self.directory = directory
        self._inside = inside
        self.state = directory / "node"
        self.server = server
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None

    async def join(self) -> NodeProcess:
        """Give it a join token, start it, and wait until the server knows its facts."""
        async with self.server.client() as client:
            made = await client.post("/api/v1/tokens", TokenRequest("join", self.name), NewToken)
            self.join_token.write_text(made.token)
            self.join_token.chmod(0o600)
            self.start()
            deadline = time.monotonic() + READY_S
            while not any(seen.name == self.name and seen.cpus for seen in await nodes.listing(client)):
                assert time.monotonic() < deadline, f"the node does not come up:\n{self.log()}"
                assert self.process is not None
                assert self.process.poll() is None, self.log()
                await asyncio.sleep(0.05)
        return self

    @property
    def join_token(self) -> Path:
        return self.directory / "join.token"

    def start(self) -> None:
        """Start its process."""
        argv = [*self._inside, sys.executable, "-m", "llmagentos.fleet.node"]
        argv += ["--state", str(self.state), "--name", self.name]
        argv += ["--server", self.server.url, "--join-token-file", str(self.join_token)]
        argv += ["--ca", str(self.server.ca)] if self.server.ca else []
        env = {name: value for name, value in self.server.env.items() if not name.startswith("LLMAGENTOS_")}
        with (self.directory / "node.log").open("ab") as log:
            self.process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(END_S)

    def kill(self) -> None:
        """`kill -9`."""
        self.stop(signal.SIGKILL)

    def log(self) -> str:
        """What it wrote."""
        return (self.directory / "node.log").read_text(errors="replace")

    async def status(self) -> NodeSummary:
        """As the server sees it."""
        async with self.server.client() as client:
            return (await nodes.show(client, self.name)).summary

    def runners(self, job: int | str) -> list[psutil.Process]:
        """The processes that run the playbook of `job`; of its second attempt: `12.2`."""
        wanted = ["llmagentos_ansible", str(self.state / "jobs" / str(job))]
        return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-2:] == wanted]


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """`kill -9` of each that is still there: the end of one may have been the end of the next."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def bundle(files: Mapping[str, str]) -> bytes:
    """A tar.gz of `files`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


async def submit(client: ApiClient, files: Mapping[str, str], **options: Any) -> int:
    """Queue the playbook `site.yml` of `files`; the job's number."""
    content = bundle(files)
    digest = hashlib.sha256(content).hexdigest()
    await jobs.upload_bundle(client, digest, content)
    return (await jobs.submit(client, JobSpec(digest, "site.yml", **options))).summary.id


async def ended(client: ApiClient, job: int, *, within: float = 90.0) -> Job:
    """The job, once it has ended."""
    deadline = time.monotonic() + within
    while (found := await jobs.show(client, job)).summary.ended is None:
        assert time.monotonic() < deadline, f"job {job} has not ended: {found.hosts}"
        await asyncio.sleep(0.05)
    return found


@pytest.fixture
def node(server: ServerProcess, tmp_path: Path) -> Iterator[NodeProcess]:
    """A node `web1` of `server`, ready for jobs."""
    directory = tmp_path / "web1"
    directory.mkdir()
    made = NodeProcess(directory, server, "web1")
    asyncio.run(made.join())
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()
    for job in (made.state / "jobs").iterdir() if (made.state / "jobs").exists() else ():
        kill_all(made.runners(job.name))

"""A job to 1,000 simulated nodes: real server, real protocol. Goal: queued in 1 s, all results in 10 s.

A simulated node joins with its own token, sends its heartbeats, and for each job fetches the bundle, sends the
events of a playbook of three tasks, and its end: each node over a connection of its own, as real ones do.
What Ansible would take on the machines is left out.

    bench_fleet.py [NODES]
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import resource
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Finish, Job, JobEvent, JobSpec, PlayStarted, Recap, Stats, TaskResult, TaskStarted
from llmagentos.api.nodes import Facts, Heartbeat, Join
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core import discovery
from llmagentos.fleet.node import keys

GOAL_QUEUED_S, GOAL_DONE_S = 1.0, 10.0
TASKS = 3
JOBS = 3
PLAYBOOK = b"- hosts: all\n  tasks:\n" + b"".join(b"    - command: echo %d\n" % n for n in range(TASKS))


class SimulatedNode:
    """One node agent: everything but the playbook."""

    def __init__(self, url: str, token: str, name: str) -> None:
        self.client = ApiClient(url, token, timeout=60)
        self.name = name
        self.ended: Counter[int] = Counter()

    async def run(self) -> None:
        """Beat and work, for ever."""
        async with self.client, asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            while True:
                claimed = await jobs.claim(self.client)
                if (job := claimed.job) is None:
                    continue
                await jobs.download_bundle(self.client, job.bundle)
                await jobs.send_events(self.client, job.job, job.fence, self._events(job.next_seq))
                recap = Stats(ok=TASKS + 1, changed=TASKS)
                await jobs.finish(self.client, job.job, Finish(job.fence, "succeeded", exit_code=0, recap=recap))
                self.ended[job.job] += 1

    async def _beat(self) -> None:
        while True:
            answer = await nodes.beat(self.client, Heartbeat(load=[0.1, 0.1, 0.1], time=time.time()))
            await asyncio.sleep(answer.interval_s)

    def _events(self, first: int) -> list[JobEvent]:
        now, found = time.time(), list[JobEvent]()
        found.append(PlayStarted(seq=first, at=now, name="all"))
        for task in range(TASKS):
            name = f"command {task}"
            found.append(TaskStarted(seq=first + len(found), at=now, name=name, action="command"))
            result = {"rc": 0, "stdout": str(task), "changed": True}
            ended = TaskResult(
                seq=first + len(found), at=now, host=self.name, task=name, status="changed", result=result
            )
            found.append(ended)
        found.append(Recap(seq=first + len(found), at=now, hosts={self.name: Stats(ok=TASKS + 1, changed=TASKS)}))
        return found


def bundle() -> tuple[str, bytes]:
    """A playbook's directory as the CLI packs it: digest and content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("site.yml")
        member.size = len(PLAYBOOK)
        archive.addfile(member, io.BytesIO(PLAYBOOK))
    return hashlib.sha256(buffer.getvalue()).hexdigest(), buffer.getvalue()


async def enrol(admin: ApiClient, url: str, count: int) -> list[SimulatedNode]:
    """So many nodes, each with a token of its own."""

    async def one(number: int) -> SimulatedNode:
        name = f"sim{number:05}"
        made = await admin.post("/api/v1/tokens", TokenRequest("join", name), NewToken)
        async with ApiClient(url, made.token) as joining:
            joined = await nodes.join(joining, Join(name, name, "sim", keys.request(keys.generate(), name)))
        node = SimulatedNode(url, joined.token, name)
        await nodes.put_facts(node.client, Facts(hostname=name, version="sim", cpus=2, os="simulated"))
        return node

    found: list[SimulatedNode] = []
    for start in range(0, count, 20):
        found += await asyncio.gather(*(one(number) for number in range(start, min(start + 20, count))))
    return found


async def job_to_all(admin: ApiClient, spec: JobSpec, server: psutil.Process) -> None:
    """Queue one job on all and wait for every result; prints what it took."""
    began, cpu = time.monotonic(), sum(server.cpu_times()[:2])
    job = await jobs.submit(admin, spec)
    queued = time.monotonic() - began
    last: Job = job
    async with jobs.follow(admin, job.summary.id) as items:
        async for item in items:
            if isinstance(item, Job):
                last = item
    done = time.monotonic() - began
    states = Counter(host.state for host in last.hosts)
    told = [
        f"{took:.2f} s ({'met' if took <= goal else 'MISSED'})"
        for took, goal in ((queued, GOAL_QUEUED_S), (done, GOAL_DONE_S))
    ]
    cpu = sum(server.cpu_times()[:2]) - cpu
    print(f"job {job.summary.id} on {len(last.hosts)} nodes: queued {told[0]}, all results {told[1]}, {dict(states)}, "
          f"server {cpu:.1f} s CPU, {server.memory_info().rss / 2**20:.0f} MiB")  # fmt: skip


async def measure(url: str, token: str, server: psutil.Process, count: int) -> None:
    """Join, and run a few jobs on all."""
    async with ApiClient(url, token, timeout=120) as admin:
        began = time.monotonic()
        fleet = await enrol(admin, url, count)
        print(f"{count} nodes joined in {time.monotonic() - began:.1f} s")
        digest, content = bundle()
        await jobs.upload_bundle(admin, digest, content)
        async with AsyncExitStack() as stack:
            tasks = [asyncio.create_task(node.run()) for node in fleet]
            stack.callback(lambda: [task.cancel() for task in tasks])
            while sum(node.state == "ready" for node in await nodes.listing(admin)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            print(f"all ready; server {server.memory_info().rss / 2**20:.0f} MiB")
            for _ in range(JOBS):
                await job_to_all(admin, JobSpec(bundle=digest, playbook="site.yml"), server)
        lost = sum(set(node.ended.values()) != {1} or len(node.ended) != JOBS for node in fleet)
        print(f"nodes that did not get each job exactly once: {lost}")


def main() -> None:
    """Start a server in a process of its own, measure, stop it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as directory, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        root = Path(directory)
        (root / "llmagentos.yaml").write_text(f"server: {{limits: {{connections: {2 * count + 100}}}}}\nmodels: {{}}\n")
        env = os.environ | {
            "LLMAGENTOS_STATE": f"{root}/state",
            "LLMAGENTOS_CONFIG": f"{root}/llmagentos.yaml",
            "LLMAGENTOS_SERVER_ADDRESS": f"127.0.0.1:{port}",
        }
        with (root / "server.log").open("wb") as log:
            server = subprocess.Popen([sys.executable, "-m", "llmagentos.server"], env=env, cwd=root, stderr=log)
        credentials = root / "state" / discovery.CREDENTIALS
        while not credentials.exists() or socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
            assert server.poll() is None, (root / "server.log").read_text()
        try:
            token = discovery.read(credentials).token
            asyncio.run(measure(f"http://127.0.0.1:{port}", token, psutil.Process(server.pid), count))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()

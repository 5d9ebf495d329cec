"""A job to 1,000 simulated nodes: real server, real protocol. Goal: queued in 1 s, all results in 10 s.

A simulated node joins with its own token, sends its heartbeats, and for each job fetches the bundle, sends the
events of a playbook of three tasks, and its end: each node over a connection of its own, as real ones do.
What Ansible would take on the machines is left out.

    bench_fleet.py [NODES...]      how what a node costs the server grows with their number
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job, JobSpec
from llmagentos.core import discovery

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.fleet import bundle, enrol

GOAL_QUEUED_S, GOAL_DONE_S = 1.0, 10.0
JOBS = 3


def spent(server: psutil.Process) -> float:
    """Seconds of processor time."""
    return float(sum(server.cpu_times()[:2]))


async def job_to_all(admin: ApiClient, spec: JobSpec, server: psutil.Process) -> float:
    """Queue one job on all and wait for every result; prints what it took. The server's processor time."""
    began, cpu = time.monotonic(), spent(server)
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
    cpu = spent(server) - cpu
    how = " with a time limit" if spec.total_timeout_s else ""
    print(f"job {job.summary.id}{how} on {len(last.hosts)} nodes: queued {told[0]}, all results {told[1]}, "
          f"{dict(states)}, server {cpu:.1f} s CPU, {server.memory_info().rss / 2**20:.0f} MiB")  # fmt: skip
    return cpu


async def measure(url: str, token: str, server: psutil.Process, count: int) -> Growth:
    """Join, and run a few jobs on all, the last one of a kind that something more than the queues decides on."""
    async with ApiClient(url, token, timeout=120) as admin:
        began, cpu = time.monotonic(), spent(server)
        fleet = await enrol(admin, url, count)
        joining = spent(server) - cpu
        print(f"{count} nodes joined in {time.monotonic() - began:.1f} s, server {joining:.1f} s CPU")
        digest, content = bundle()
        await jobs.upload_bundle(admin, digest, content)
        async with AsyncExitStack() as stack:
            tasks = [asyncio.create_task(node.run()) for node in fleet]
            stack.callback(lambda: [task.cancel() for task in tasks])
            while sum(node.state == "ready" for node in await nodes.listing(admin)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            print(f"all ready; server {server.memory_info().rss / 2**20:.0f} MiB")
            spec = JobSpec(bundle=digest, playbook="site.yml")
            plain = [await job_to_all(admin, spec, server) for _ in range(JOBS - 1)]
            driven = await job_to_all(admin, msgspec.structs.replace(spec, total_timeout_s=3600.0), server)
        lost = sum(set(node.ended.values()) != {1} or len(node.ended) != JOBS for node in fleet)
        print(f"nodes that did not get each job exactly once: {lost}")
        memory = server.memory_info().rss / 2**20
        return Growth(count, joining / count * 1e3, min(plain) / count * 1e3, driven / count * 1e3, memory)


class Growth(NamedTuple):
    """What one node costs the server among `count`: milliseconds of processor time, and its memory in all."""

    nodes: int
    join: float
    job: float
    driven: float
    mebibytes: float


def main() -> None:
    """As many runs as numbers of nodes are given, and then how the cost of a node grows with their number."""
    found = [run(count) for count in map(int, sys.argv[1:] or ["1000"])]
    print("nodes  join  job  job with a time limit (ms of the server's CPU for each node)  server's MiB")
    for each in found:
        print(f"{each.nodes:5}  {each.join:4.1f}  {each.job:3.1f}  {each.driven:3.1f}  {each.mebibytes:.0f}")


def run(count: int) -> Growth:
    """Start a server in a process of its own, measure, stop it."""
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
            return asyncio.run(measure(f"http://127.0.0.1:{port}", token, psutil.Process(server.pid), count))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()

"""A job to 1,000 simulated nodes: real server, real protocol. Goal: queued in 1 s, all results in 10 s.

A simulated node joins with its own token, sends its heartbeats, and for each job fetches the bundle, sends the
events of a playbook of three tasks, and its end: each node over a connection of its own, as real ones do.
What Ansible would take on the machines is left out.

    bench_fleet.py [NODES]
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

import psutil

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job, JobSpec
from llmagentos.core import discovery

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.fleet import bundle, enrol

GOAL_QUEUED_S, GOAL_DONE_S = 1.0, 10.0
JOBS = 3


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

"""Simulated node agents: the real protocol, many in one process, and no machine behind them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
import time
from collections import Counter
from functools import partial

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Finish, JobEvent, NodeJob, PlayStarted, Recap, Stats, TaskResult, TaskStarted
from llmagentos.api.nodes import Facts, Heartbeat, Join
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.insist import insist, spread

TASKS = 3
EVENTS = 2 + 2 * TASKS
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
                claimed = await insist(lambda: jobs.claim(self.client), what="claim")
                if claimed.job is not None:
                    await self._work(claimed.job)

    async def _work(self, job: NodeJob) -> None:
        await insist(lambda: jobs.download_bundle(self.client, job.bundle), what="download")
        events = self._events(1)[job.next_seq - 1 :]
        await insist(lambda: jobs.send_events(self.client, job.job, job.fence, events), what="events")
        recap = Stats(ok=TASKS + 1, changed=TASKS)
        end = Finish(job.fence, "succeeded", exit_code=0, recap=recap)
        await insist(lambda: jobs.finish(self.client, job.job, end), what="finish")
        self.ended[job.job] += 1

    async def _beat(self) -> None:
        while True:
            said = Heartbeat(load=[0.1, 0.1, 0.1], time=time.time())
            answer = await insist(partial(nodes.beat, self.client, said), what="beat")
            await asyncio.sleep(spread(answer.interval_s))

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

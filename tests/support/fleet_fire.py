"""Jobs under fire: a server and two node agents in processes of their own, killed at random moments.

There are always a few jobs under way: ones that succeed, ones whose third task fails, ones whose nodes go from task to
task together, and ones that are cancelled. Each task appends a line to a file; no line may ever come twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llmagentos.api import jobs
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job, JobHost, TaskResult
from support.node import NodeProcess, kill_all, submit
from support.server import ServerProcess, eventually

Kind = Literal["plain", "failing", "together", "cancelled"]
KINDS: tuple[Kind, ...] = ("plain", "failing", "together", "plain", "cancelled")
NODES = ("web1", "web2")
TASKS = 5
UNDER_WAY = 3
LONGEST_S = 1.5
PROGRESS_S = 60.0
"""Within this some task runs, however loaded this machine is: all were started again."""
PATIENCE_S = 180.0
ENDS = {"plain": ("succeeded", 0), "together": ("succeeded", 0), "failing": ("failed", 2)}


@dataclass
class Report:
    """What came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    """Lines in the file."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        killed, made = (", ".join(f"{name} {n}" for name, n in sorted(c.items())) for c in (self.kills, self.jobs))
        return (
            f"{self.jobs.total()} jobs on {len(NODES)} nodes ({made}), {self.kills.total()} kills ({killed}), "
            f"{self.tasks} tasks run, {len(self.wrong)} faults"
        )


class FleetRange:
    """The three processes, and what was asked of them."""

    def __init__(self, directory: Path, seed: int, *, database: str | None = None) -> None:
        self._chance = random.Random(seed)  # moments, not secrets
        self.server = ServerProcess(directory, database=database)
        self.nodes = {name: NodeProcess(directory / name, self.server, name) for name in NODES}
        self._notes = directory / "notes"
        self._notes.touch()
        self._asked: dict[int, Kind] = {}
        self._open: set[int] = set()
        self.report = Report()

    def start(self) -> None:
        """Start all three."""
        self.server.start()
        for node in self.nodes.values():
            node.directory.mkdir()
            asyncio.run(node.join())

    def stop(self) -> None:
        """End them, and what they have started."""
        for node in self.nodes.values():
            if node.process is not None:
                node.kill()
            for directory in (node.state / "jobs").glob("*"):
                kill_all(node.runners(directory.name))
        if self.server.process is not None:
            self.server.kill()

    # The fire -------------------------------------------------------------------------------------

    async def fire(self, kills: int, told: Callable[[str], None] = lambda _: None) -> None:
        """Kill server, a node agent, or all of them at a random moment, `kills` times; then wait for all jobs."""
        for number in range(kills):
            async with self.server.client() as client:
                await self._ask(client)
            await self._moment()
            await self._kill(self._chance.choice(("server", *NODES, "all")))
            if (number + 1) % 10 == 0:
                told(f"{number + 1} kills, {len(self._asked)} jobs")
        async with self.server.client() as client, asyncio.timeout(PATIENCE_S):
            while await self._under_way(client):
                await asyncio.sleep(0.1)

    async def _moment(self) -> None:
        """Wait: sometimes just so, mostly until work goes on, or else kills would mostly meet what begins."""
        if self._chance.random() < 0.7:
            before = self._notes.stat().st_size
            await eventually(lambda: self._notes.stat().st_size > before, within=PROGRESS_S)
        await asyncio.sleep(self._chance.uniform(0.0, LONGEST_S))

    async def _under_way(self, client: ApiClient) -> int:
        for job in sorted(self._open):
            if (await jobs.show(client, job)).summary.ended is not None:
                self._open.discard(job)
        return len(self._open)

    async def _ask(self, client: ApiClient) -> None:
        for _ in range(UNDER_WAY - await self._under_way(client)):
            serial = len(self._asked)
            kind = KINDS[serial % len(KINDS)]
            together = True if kind == "together" else None
            job = await submit(client, {"site.yml": self._play(serial, kind)}, lockstep=together)
            assert job == serial + 1
            self._asked[job] = kind
            self._open.add(job)
            self.report.jobs[kind] += 1
        victims = [job for job in self._open if self._asked[job] == "cancelled"]
        if victims and self._chance.random() < 0.5:
            await jobs.cancel(client, min(victims))

    def _play(self, serial: int, kind: Kind) -> str:
        lines = ["- hosts: all", "  gather_facts: false", "  tasks:"]
        for task in range(TASKS):
            note = f"echo {serial + 1} {{{{ inventory_hostname }}}} {task} >> {self._notes}"
            rest = "exit 3" if kind == "failing" and task == 2 else f"sleep {self._chance.uniform(0, 0.4):.2f}"
            lines.append(f"    - {{name: Task {task}, shell: '{note}; {rest}'}}")
        return "\n".join(lines) + "\n"

    async def _kill(self, name: str) -> None:
        self.report.kills[name] += 1
        for node in NODES if name == "all" else (name,):
            if node in self.nodes:
                self.nodes[node].kill()
        if name in ("all", "server"):
            self.server.kill()
            await asyncio.to_thread(self.server.start)
        for node in NODES if name == "all" else (name,):
            if node in self.nodes:
                self.nodes[node].start()

    # What has to be true --------------------------------------------------------------------------

    async def judge(self) -> Report:
        """The report, with every fault that was found."""
        notes = Counter(self._notes.read_text().splitlines())
        self.report.tasks = notes.total()
        self.report.wrong += [f"'{note}' (job, node, task) ran {n} times" for note, n in notes.items() if n > 1]
        async with self.server.client() as client:
            for number, kind in self._asked.items():
                job = await jobs.show(client, number)
                records = await jobs.events(client, number)
                if kind != "cancelled" and (job.summary.state, job.summary.exit_code) != ENDS[kind]:
                    self.report.wrong.append(f"job {number} ({kind}): {job.summary.state}: {job.hosts}")
                for host in job.hosts:
                    events = [record.event for record in records if record.node == host.node and record.event.seq]
                    self._judge_host(job, kind, host, [event.seq for event in events])
                    told = [event.task for event in events if isinstance(event, TaskResult)]
                    ran = [task for task in range(TASKS) if f"{number} {host.node} {task}" in notes]
                    self._judge_tasks(f"job {number} ({kind}) on {host.node}", kind, ran, told)
        return self.report

    def _judge_host(self, job: Job, kind: Kind, host: JobHost, numbers: list[int]) -> None:
        where = f"job {job.summary.id} ({kind}) on {host.node}"
        if numbers != list(range(1, len(numbers) + 1)):
            self.report.wrong.append(f"{where}: events {numbers}")
        right = ("succeeded", "cancelled") if kind == "cancelled" else (ENDS[kind][0],)
        if host.state not in right:
            self.report.wrong.append(f"{where}: {host.state}: {host.message}")

    def _judge_tasks(self, where: str, kind: Kind, ran: list[int], told: list[str]) -> None:
        """What was told of tasks is what was run, and of a job that was not cancelled it is all of it."""
        whole = list(range(3 if kind == "failing" else TASKS))
        names = [f"Task {task}" for task in ran]
        if kind != "cancelled":
            right = ran == whole and told == names
        else:  # a task that was begun need not have come to its result
            right = ran == whole[: len(ran)] and told in (names, names[:-1])
        if not right:
            self.report.wrong.append(f"{where}: ran {ran}, told {told}")

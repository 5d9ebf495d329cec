"""The queue against a model: whatever people, nodes and the clock do, jobs come in order and are written once."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from llmagentos.api.jobs import Finish, JobSpec, LogLine, NodeJob, Recap
from llmagentos.cli.pack import pack
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict, NotFound, TooLarge
from llmagentos.core.events import Hub
from llmagentos.fleet import job_queues
from llmagentos.fleet.job_queues import LEASE_S
from llmagentos.fleet.job_states import ENDS
from llmagentos.fleet.jobs import Jobs
from llmagentos.storage import job_events, tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.jobs import JobRecords

NODES = ["a", "b"]
assert tables.METADATA is not None


class World:
    """The jobs of a server on a database in memory, which a restart keeps."""

    def __init__(self, directory: Path) -> None:
        (directory / "play").mkdir()
        (directory / "play" / "site.yml").write_text("- hosts: all\n  tasks: [{ping: }]\n")
        self.digest, content = pack(directory / "play")
        self.clock = ManualClock()
        self.database = Database("sqlite:///:memory:")
        self.blobs = Blobs(directory / "blobs")
        self.content = content
        self.jobs = self.server()

    def server(self) -> Jobs:
        async def nodes() -> list[str]:
            return NODES

        records = JobRecords(self.database, self.clock)
        return Jobs(records, self.blobs, Hub(), self.clock, nodes=nodes, away=lambda _: False)

    async def begin(self) -> None:
        await self.database.create_all()
        await self.blobs.put(self.digest, self.content)

    def spec(self, limit: str | None = None) -> JobSpec:
        return JobSpec(self.digest, "site.yml", limit=limit)


class Queues(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self.directory.name))
        self.run(self.world.begin())
        self.held: dict[str, NodeJob] = {}  # what each node believes to hold
        self.stale: list[tuple[str, NodeJob]] = []
        self.sent: dict[tuple[int, str], int] = {}
        self.begun: dict[str, list[int]] = {name: [] for name in NODES}
        self.highest: dict[tuple[int, str], int] = {}

    def run(self, coroutine):
        return self.loop.run(coroutine)

    def teardown(self) -> None:
        self.check()
        self.run(self.world.database.aclose())
        self.loop.close()
        self.directory.cleanup()

    @rule(limit=st.sampled_from([None, "a", "b"]))
    def submit(self, limit):
        self.run(self.world.jobs.submit(self.world.spec(limit), "me"))

    @rule(node=st.sampled_from(NODES))
    def claim(self, node):
        job = self.run(self.world.jobs.queues.claim(node, wait=0)).job
        if node in self.held:
            self.stale.append((node, self.held.pop(node)))
        if job is None:
            return
        assert job.fence > self.highest.get((job.job, node), 0), "fences only grow"
        self.highest[job.job, node] = job.fence
        assert job.resumed == (job.job in self.begun[node]), "begun once, resumed afterwards"
        assert job.next_seq == self.sent.get((job.job, node), 0) + 1
        if not job.resumed:
            self.begun[node].append(job.job)
        self.held[node] = job

    @rule(node=st.sampled_from(NODES), again=st.integers(0, 3), count=st.integers(1, 4))
    def send(self, node, again, count):
        if node not in self.held:
            return
        job = self.held[node]
        known = self.sent.get((job.job, node), 0)
        first = max(1, known + 1 - again)
        events = [LogLine(seq=seq, at=0.0, text=f"{node} {seq}") for seq in range(first, known + count + 1)]
        try:
            ack = self.run(self.world.jobs.queues.append(node, job.job, job.fence, events))
        except Conflict:
            assert self.ended(node, job.job), "nothing else takes a job from a node that holds it"
        else:
            self.sent[job.job, node] = known + count
            assert ack.next_seq == known + count + 1

    @rule(node=st.sampled_from(NODES), end=st.sampled_from(sorted(ENDS)))
    def finish(self, node, end):
        if node not in self.held:
            return
        job = self.held[node]
        self.run(self.world.jobs.queues.finish(node, job.job, Finish(job.fence, end, 0)))
        del self.held[node]

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def an_old_holder_writes(self, data):
        node, job = data.draw(st.sampled_from(self.stale))
        try:
            self.run(self.world.jobs.queues.append(node, job.job, job.fence, [LogLine(seq=999, at=0.0, text="no")]))
        except Conflict:
            return
        raise AssertionError("an old fence wrote")

    @rule(job=st.integers(1, 6))
    def cancel(self, job):
        try:
            shown = self.run(self.world.jobs.cancel(job, "me"))
        except (Conflict, NotFound):
            return
        assert all(host.state in ENDS or host.state == "cancelling" for host in shown.hosts)

    @rule(seconds=st.sampled_from([1.0, LEASE_S / 2, LEASE_S + 1]))
    def time_passes(self, seconds):
        self.world.clock.advance(seconds)

    @rule(jump=st.sampled_from([-1e6, 1e6]))
    def the_wall_clock_jumps(self, jump):
        self.world.clock.wall += jump

    @rule()
    def restart(self):
        self.world.jobs = self.world.server()

    def ended(self, node: str, job: int) -> bool:
        shown = self.run(self.world.jobs.show(job))
        return any(host.node == node and host.state in ENDS for host in shown.hosts)

    @rule()
    def check(self):
        """Everything that always holds (as a rule and at the end: as an invariant it takes most of the time)."""
        self.each_node_works_in_order_and_one_at_a_time()
        self.every_event_is_there_once()

    def each_node_works_in_order_and_one_at_a_time(self):
        for node in NODES:
            assert self.begun[node] == sorted(self.begun[node])
            queue = [
                (job.summary.id, host.state)
                for job in map(self.show, self.ids())
                for host in job.hosts
                if host.node == node and host.state not in ENDS
            ]
            working = [entry for entry in queue if entry[1] != "queued"]
            assert len(working) <= 1
            assert not working or queue[0] == working[0]

    def every_event_is_there_once(self):
        for job in self.ids():
            records = self.run(self.world.jobs.events(job, after=0, limit=1000))
            assert [record.id for record in records] == list(range(1, len(records) + 1))
            for node in NODES:
                numbers = [record.event.seq for record in records if record.node == node]
                assert numbers == list(range(1, self.sent.get((job, node), 0) + 1))

    def ids(self) -> list[int]:
        return sorted(job.id for job in self.run(self.world.jobs.listing(limit=100)))

    def show(self, job: int):
        return self.run(self.world.jobs.show(job))


Queues.TestCase.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
TestQueues = Queues.TestCase


def test_events_over_the_limit_are_left_out_but_for_the_recap(tmp_path, monkeypatch):
    monkeypatch.setattr(job_queues, "MAX_EVENTS_PER_HOST", 2)

    async def main() -> None:
        world = World(tmp_path)
        await world.begin()
        sent = (await world.jobs.submit(world.spec("a"), "me")).summary.id
        job = (await world.jobs.queues.claim("a", wait=0)).job
        events = [LogLine(seq=seq, at=0.0, text="x") for seq in range(1, 6)]
        ack = await world.jobs.queues.append("a", sent, job.fence, [*events, Recap(seq=6, at=0.0, hosts={})])
        assert ack.next_seq == 7
        kept = [record.event for record in await world.jobs.events(sent, after=0, limit=10)]
        assert [event.seq for event in kept] == [1, 2, 3, 6]
        assert "not kept" in kept[2].text and isinstance(kept[3], Recap)
        await world.database.aclose()

    asyncio.run(main())


def test_events_are_read_in_bounded_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(job_events, "PAGE_BYTES", 3000)
    monkeypatch.setattr(job_events, "SLICE", 2)

    async def main() -> None:
        world = World(tmp_path)
        await world.begin()
        sent = (await world.jobs.submit(world.spec("a"), "me")).summary.id
        job = (await world.jobs.queues.claim("a", wait=0)).job
        await world.jobs.queues.append(
            "a", sent, job.fence, [LogLine(seq=n, at=0.0, text="x" * 1000) for n in range(1, 10)]
        )
        assert [record.id for record in await world.jobs.events(sent, after=3, limit=100)] == [4, 5, 6, 7]
        assert [record.id for record in await world.jobs.events(sent, after=7, limit=100)] == [8, 9]
        assert [record.id for record in await world.jobs.last_events(sent, limit=3)] == [7, 8, 9]
        assert [record.id for record in await world.jobs.last_events(sent, limit=100)] == [6, 7, 8, 9]
        await world.database.aclose()

    asyncio.run(main())


def test_variables_of_a_job_are_bounded(tmp_path):
    async def main() -> None:
        world = World(tmp_path)
        await world.begin()
        spec = JobSpec(world.digest, "site.yml", extra_vars={"a": "x" * 2**20})
        with pytest.raises(TooLarge, match="too much for one job"):
            await world.jobs.submit(spec, "me")
        await world.database.aclose()

    asyncio.run(main())


def test_old_jobs_and_their_bundles_go(tmp_path):
    async def main() -> None:
        world = World(tmp_path)
        await world.begin()
        old = (await world.jobs.submit(world.spec("a"), "me")).summary.id
        await world.jobs.cancel(old, "me")
        world.clock.advance(10 * 86_400)
        kept = (await world.jobs.submit(world.spec("a"), "me")).summary.id
        await world.jobs.prune(9)
        assert [job.id for job in await world.jobs.listing(limit=10)] == [kept]
        assert await world.blobs.prune({world.digest}, grace=-1) == 0
        assert await world.blobs.prune(set(), grace=-1) == 1
        assert hashlib.sha256(world.content).hexdigest() == world.digest
        await world.database.aclose()

    asyncio.run(main())


def test_what_is_for_a_node_that_was_removed_ends(tmp_path: Path):
    """Removed between the choice of nodes and the job; or by a server that was killed before it emptied the queue."""

    async def main() -> None:
        world, removed = World(tmp_path), set[str]()
        await world.begin()

        async def nodes() -> list[str]:
            return NODES

        async def missing(names):
            return removed & set(names)

        records = JobRecords(world.database, world.clock)
        jobs = Jobs(records, world.blobs, Hub(), world.clock, nodes=nodes, away=lambda _: False, missing=missing)
        before = await jobs.submit(world.spec(), "me")
        await jobs.drop_lost()
        assert await jobs.queue_lengths() == {"a": 1, "b": 1}
        removed.add("b")
        await jobs.drop_lost()
        assert await jobs.queue_lengths() == {"a": 1}
        told = {host.node: host.message for host in (await jobs.show(before.summary.id)).hosts}
        assert told["b"] == "the node was removed"
        made = await jobs.submit(world.spec(), "me")
        assert {host.node: host.state for host in made.hosts} == {"a": "queued", "b": "cancelled"}
        await world.database.aclose()

    asyncio.run(main())


def test_the_end_of_a_job_is_told_whoever_repeats_what_was_said_before(tmp_path: Path):
    """A node that did not hear the answer tells its end again, in one transaction with the last node's."""

    async def main() -> None:
        world, hub = World(tmp_path), Hub()
        await world.begin()

        async def nodes() -> list[str]:
            return NODES

        records = JobRecords(world.database, world.clock)
        jobs = Jobs(records, world.blobs, hub, world.clock, nodes=nodes, away=lambda _: False)
        await jobs.submit(world.spec(), "me")
        held = [(await jobs.queues.claim(node, wait=0)).job for node in NODES]
        with hub.subscribe("jobs") as news:
            ends = [(node, Finish(job.fence, "succeeded", 0)) for node, job in zip(NODES, held, strict=True) if job]
            (a, a_ends), (b, b_ends) = ends
            await jobs.queues.finish(a, 1, a_ends)
            await asyncio.gather(jobs.queues.finish(a, 1, a_ends), jobs.queues.finish(b, 1, b_ends))
            said = []
            while not said or not said[-1].ended:
                said.append(await news.next(20))
        assert [each.ended for each in said].count(True) == 1
        await world.database.aclose()

    asyncio.run(main())


def test_a_message_is_kept_as_every_database_can(tmp_path: Path):
    """Else a node would tell its end for ever, and with it those that tell theirs at the same time."""

    async def main() -> None:
        world = World(tmp_path)
        await world.begin()
        await world.jobs.submit(world.spec("a"), "me")
        held = (await world.jobs.queues.claim("a", wait=0)).job
        assert held is not None
        await world.jobs.queues.finish("a", held.job, Finish(held.fence, "failed", 1, None, "x\0: 你好"))
        [host] = (await world.jobs.show(held.job)).hosts
        assert (host.state, host.message) == ("failed", "x: 你好")
        await world.database.aclose()

    asyncio.run(main())

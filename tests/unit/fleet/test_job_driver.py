"""Jobs with locks, retries, windows and approvals against a model, with nodes, people and restarts in any order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from llmagentos.api.job_control import Retries, Rollout
from llmagentos.api.jobs import Finish, JobSpec, NodeJob
from llmagentos.cli.pack import pack
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict
from llmagentos.core.events import Hub
from llmagentos.fleet.job_driver import JobDriver
from llmagentos.fleet.job_gates import Opening
from llmagentos.fleet.job_states import ENDS, TRANSITIONS
from llmagentos.fleet.jobs import Jobs
from llmagentos.kernel.rollout import TRANSITIONS as BATCHES
from llmagentos.storage import tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.jobs import JobRecords

NODES = ["a", "b", "c"]
HOSTS = {(before, after) for (before, _), after in TRANSITIONS.items()}
STEPS = {(before, after) for (before, _), after in BATCHES.items()}
assert tables.METADATA is not None


class Window:
    """A window that is opened and closed by hand."""

    def __init__(self) -> None:
        self.open = True

    def opening(self, _name: str, _now: float) -> Opening:
        return Opening(self.open, None)


class Control(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        root = Path(self.directory.name)
        (root / "play").mkdir()
        (root / "play" / "site.yml").write_text("- hosts: all\n  tasks: [{ping: }]\n")
        self.digest, content = pack(root / "play")
        self.clock, self.window = ManualClock(), Window()
        self.database, self.blobs = Database("sqlite:///:memory:"), Blobs(root / "blobs")
        self.held: dict[str, NodeJob] = {}
        self.submitted: list[int] = []
        self.run(self.database.create_all())
        self.run(self.blobs.put(self.digest, content))
        self.start()

    def run(self, coroutine: Any) -> Any:
        return self.loop.run(coroutine)

    def start(self) -> None:
        async def nodes() -> list[str]:
            return NODES

        records = JobRecords(self.database, self.clock)
        hub = Hub()
        self.records = records
        self.jobs = Jobs(records, self.blobs, hub, self.clock, nodes=nodes, away=lambda _: False, windows=["w"])
        self.driver = JobDriver(records, self.jobs.writer, None, self.window, hub, self.clock)  # type: ignore[arg-type]

    def drive(self) -> None:
        async def look() -> None:
            async with asyncio.TaskGroup() as group:
                await self.driver.look(group)

        self.run(look())

    def teardown(self) -> None:
        for _ in range(200):  # whatever happened, everything comes to an end
            self.window.open = True
            self.clock.advance(60)
            for number in self.submitted:
                with contextlib.suppress(Conflict):
                    self.run(self.jobs.decide(number, "ann", approved=True))
            self.drive()
            moved = [self.works(node, "succeeded") for node in NODES]
            if not any(moved) and not self.run(self.records.driven()):
                break
        else:
            raise AssertionError("never comes to an end")
        for number in self.submitted:
            assert self.run(self.jobs.show(number)).summary.ended is not None
        self.tells_the_truth()
        self.run(self.database.aclose())
        self.loop.close()
        self.directory.cleanup()

    def works(self, node: str, status: Any) -> bool:
        job = self.run(self.jobs.queues.claim(node, wait=0)).job
        if job is None:
            return False
        ending = "cancelled" if job.cancel else status
        self.run(self.jobs.queues.finish(node, job.job, Finish(job.fence, ending, 0 if ending == "succeeded" else 2)))
        self.held.pop(node, None)
        return True

    @rule(
        lock=st.sampled_from([None, "x", "y"]),
        priority=st.integers(-1, 1),
        retries=st.sampled_from([None, Retries(1, ["failed"], 5.0)]),
        window=st.sampled_from([None, None, "w"]),
        approval=st.sampled_from([None, None, "required"]),
        limit=st.sampled_from([None, "a", "b"]),
        rollout=st.sampled_from([None, None, Rollout(["1", "2"], max_failures="50%")]),
    )
    def submit(self, **more):
        self.submitted.append(self.run(self.jobs.submit(JobSpec(self.digest, "site.yml", **more), "me")).summary.id)

    @rule(node=st.sampled_from(NODES))
    def claim(self, node):
        job = self.run(self.jobs.queues.claim(node, wait=0)).job
        if job is None:
            self.held.pop(node, None)
            return
        queue = self.run(self.records.queue(node))
        waiting = [host for host in queue if host.state == "queued"]
        first = queue[0]
        assert first.job == job.job
        if not job.resumed:
            assert all((host.priority, -host.job) <= (first.priority, -first.job) for host in waiting)
        self.held[node] = job

    @rule(node=st.sampled_from(NODES), status=st.sampled_from(["succeeded", "succeeded", "failed", "interrupted"]))
    def finish(self, node, status):
        if node in self.held:
            job = self.held.pop(node)
            with contextlib.suppress(Conflict):
                self.run(self.jobs.queues.finish(node, job.job, Finish(job.fence, status, 0)))

    @rule(data=st.data(), approved=st.booleans())
    def decide(self, data, approved):
        if self.submitted:
            with contextlib.suppress(Conflict):
                self.run(self.jobs.decide(data.draw(st.sampled_from(self.submitted)), "ann", approved=approved))

    @rule(data=st.data())
    def cancel(self, data):
        if self.submitted:
            with contextlib.suppress(Conflict):
                self.run(self.jobs.cancel(data.draw(st.sampled_from(self.submitted)), "me"))

    @rule()
    def look(self):
        self.drive()
        self.everything_is_as_it_should_be()

    @rule(seconds=st.sampled_from([1, 6, 40]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def turn_window(self):
        self.window.open = not self.window.open

    @rule()
    def restart(self):
        self.held.clear()
        self.start()

    @rule()
    def everything_is_as_it_should_be(self):
        working: dict[str, set[int]] = {}
        for number in self.submitted:
            job = self.run(self.jobs.show(number))
            if job.spec.lock is not None and any(
                host.state in ("queued", "running", "cancelling") for host in job.hosts
            ):
                working.setdefault(job.spec.lock, set()).add(number)
            rule_ = job.spec.retries
            assert all(host.attempt <= 1 + (rule_.max if rule_ else 0) for host in job.hosts)
            if job.spec.approval and (job.approval is None or job.approval.state != "approved"):
                assert all(host.state in ("held", "cancelled") for host in job.hosts)
            for batch in job.batches:
                if batch.state == "waiting":
                    assert all(host.state in ("held", "cancelled") for host in job.hosts if host.batch == batch.number)
        assert all(len(jobs) == 1 for jobs in working.values()), working

    def tells_the_truth(self):
        """The history alone leads from the first state of each host and batch to the last, by the tables."""
        for number in self.submitted:
            told = self.run(self.jobs.history(number, after=0, limit=1000))
            assert [change.id for change in told] == list(range(1, len(told) + 1))
            assert all(change.by for change in told)
            for host in self.run(self.jobs.show(number)).hosts:
                mine = [change for change in told if change.node == host.node]
                assert all((change.before, change.after) in HOSTS for change in mine)
                assert all(one.after == two.before for one, two in pairwise(mine))
                assert not mine or mine[-1].after == host.state
                assert host.state in ENDS
            batches = [change for change in told if change.what == "batch"]
            assert all((change.before, change.after) in STEPS for change in batches)


EXAMPLES = int(os.environ.get("LLMAGENTOS_TEST_EXAMPLES", "4"))
Control.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None)
TestControl = Control.TestCase

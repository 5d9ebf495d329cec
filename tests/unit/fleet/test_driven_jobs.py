"""Jobs that more than their queues decides on: what each step costs, and what ends with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from llmagentos.api.job_control import Retries, Rollout
from llmagentos.api.jobs import Finish, Job, JobSpec
from llmagentos.cli.pack import pack
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Conflict
from llmagentos.core.events import Hub
from llmagentos.fleet.job_driver import JobDriver
from llmagentos.fleet.job_gates import Opening
from llmagentos.fleet.jobs import Jobs, Origin
from llmagentos.fleet.rollout import Checks
from llmagentos.storage import tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database
from llmagentos.storage.job_changes import Seen
from llmagentos.storage.job_tables import JOBS
from llmagentos.storage.jobs import JobRecords

assert tables.METADATA is not None
PLAY = "- hosts: all\n  tasks: [{ping: }]\n"
PATIENCE_S = 20.0


class Window:
    open = True

    def opening(self, _name: str, _now: float) -> Opening:
        return Opening(self.open, None)


class House:
    """Jobs and their driver on a database, for the nodes `names`."""

    def __init__(self, root: Path, names: list[str]) -> None:
        async def nodes() -> list[str]:
            return names

        self.clock, self.window, hub = ManualClock(), Window(), Hub()
        self.database, self.blobs = Database(f"sqlite:///{root / 'db'}"), Blobs(root / "blobs")
        self.records = JobRecords(self.database, self.clock)
        self.jobs = Jobs(self.records, self.blobs, hub, self.clock, nodes=nodes, away=lambda _: False, windows=["w"])
        checks = Checks(self.records, self.jobs.writer, hub, self.clock, submit=self.jobs.submit)
        self.driver = JobDriver(self.records, self.jobs.writer, checks, self.window, hub, self.clock)  # type: ignore[arg-type]
        self.group = asyncio.TaskGroup()
        (root / "play").mkdir()
        for name in ("site.yml", "gate.yml", "undo.yml"):
            (root / "play" / name).write_text(PLAY)
        self.digest, self.content = pack(root / "play")

    async def submit(self, **more: Any) -> int:
        return (await self.jobs.submit(JobSpec(self.digest, "site.yml", **more), "me")).summary.id

    async def look(self) -> None:
        await self.driver.look(self.group)

    async def works(self, node: str, status: Any = "succeeded") -> int:
        job = (await self.jobs.queues.claim(node, wait=0)).job
        assert job is not None
        await self.jobs.queues.finish(node, job.job, Finish(job.fence, status, 0))
        return job.job

    async def until(self, said: Callable[[], Any]) -> Any:
        """Look until `said` says so: what is asked of the world comes by itself."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await said()):
                await self.look()
                await asyncio.sleep(0.01)
        return found

    async def child(self, name: str) -> Job | None:
        """The job that runs the playbook `name` for another one."""
        found = [each for each in await self.jobs.listing(limit=9) if each.name == name]
        return await self.jobs.show(found[0].id) if found else None


@asynccontextmanager
async def house(root: Path, names: list[str]) -> AsyncIterator[House]:
    made = House(root, names)
    await made.database.create_all()
    await made.blobs.put(made.digest, made.content)
    try:
        async with made.group:
            yield made
            for task in made.group._tasks:
                task.cancel()
    finally:
        await made.database.aclose()


def test_a_step_of_one_node_does_not_read_all_of_them(tmp_path: Path):
    async def main() -> None:
        names = [f"n{i:02}" for i in range(40)]
        async with house(tmp_path, names) as fleet:
            rules: list[dict[str, Any]] = [{"retries": Retries(1, ["failed"], 5.0)}, {"lock": "x"}]
            rules.append({"rollout": Rollout(["100%"])})
            for rule in rules:
                number = await fleet.submit(**rule)
                await fleet.look()
                said: list[str] = []

                def heard(_c: Any, _cu: Any, statement: str, *_: Any, into: list[str] = said) -> None:
                    into.append(" ".join(statement.split()))

                event.listen(fleet.database.engine.sync_engine, "before_cursor_execute", heard)
                assert await fleet.works("n07") == number
                event.remove(fleet.database.engine.sync_engine, "before_cursor_execute", heard)
                whole = [each for each in said if "FROM job_hosts WHERE job_hosts.job = ? ORDER BY" in each]
                assert said and not whole, rule
                for name in names:
                    if name != "n07":
                        await fleet.works(name)
                await fleet.look()
                await fleet.look()
                assert (await fleet.jobs.show(number)).summary.state == "succeeded"

    asyncio.run(main())


def test_nothing_of_a_job_that_was_cancelled_begins_after_it(tmp_path: Path):
    async def main() -> None:
        async with house(tmp_path, ["a", "b"]) as fleet:
            number = await fleet.submit(rollout=Rollout(["1"], gate_playbook="gate.yml"))
            await fleet.look()
            await fleet.works("a")
            await fleet.jobs.cancel(number, "me")
            late = Origin(name=f"job:{number}", parent=number, urgent=True, nodes=frozenset({"a"}))
            with pytest.raises(Conflict, match=f"job {number} has ended"):
                await fleet.jobs.submit(JobSpec(fleet.digest, "gate.yml"), "system", late)
            assert await fleet.child("gate.yml") is None

    asyncio.run(main())


def test_the_check_of_a_job_whose_time_is_over_ends_with_it(tmp_path: Path):
    async def main() -> None:
        async with house(tmp_path, ["a", "b"]) as fleet:
            rollout = Rollout(["1"], gate_playbook="gate.yml", gate_timeout_s=3600.0)
            number = await fleet.submit(rollout=rollout, total_timeout_s=60.0)
            await fleet.look()
            await fleet.works("a")
            check = await fleet.until(lambda: fleet.child("gate.yml"))
            await fleet.look()
            fleet.clock.advance(61)

            async def both_ended() -> bool:
                found = [await fleet.jobs.show(job) for job in (number, check.summary.id)]
                return all(each.summary.ended for each in found)

            await fleet.until(both_ended)
            assert (await fleet.jobs.show(number)).summary.state == "failed"
            assert (await fleet.jobs.show(check.summary.id)).summary.state == "cancelled"

    asyncio.run(main())


def test_a_rollout_whose_time_is_over_is_rolled_back_too(tmp_path: Path):
    async def main() -> None:
        async with house(tmp_path, ["a", "b"]) as fleet:
            number = await fleet.submit(rollout=Rollout(["1"], rollback="undo.yml"), total_timeout_s=20.0)
            await fleet.look()
            job = (await fleet.jobs.queues.claim("a", wait=0)).job
            assert job is not None
            fleet.clock.advance(21)
            await fleet.look()
            assert (await fleet.jobs.show(number)).hosts[0].state == "cancelling"
            assert await fleet.child("undo.yml") is None, "not while it runs"
            await fleet.jobs.queues.finish("a", number, Finish(job.fence, "cancelled", 1))
            undo = await fleet.until(lambda: fleet.child("undo.yml"))
            assert [host.node for host in undo.hosts] == ["a"], "only where it began"
            await fleet.works("a")

            async def ended() -> Any:
                return (await fleet.jobs.show(number)).summary.ended

            await fleet.until(ended)
            done = await fleet.jobs.show(number)
            assert (done.summary.state, done.summary.exit_code) == ("failed", 2)
            assert [(each.kind, each.state) for each in done.batches][-1] == ("rollback", "passed")

    asyncio.run(main())


def test_what_failed_is_rolled_back_though_the_window_has_closed(tmp_path: Path):
    async def main() -> None:
        async with house(tmp_path, ["a", "b", "c"]) as fleet:
            number = await fleet.submit(rollout=Rollout(["1"], rollback="undo.yml"), window="w")
            await fleet.look()
            fleet.window.open = False
            await fleet.look()
            waiting = (await fleet.jobs.show(number)).hosts
            assert [host.state for host in waiting] == ["held", "held", "held"], "it had not begun"
            fleet.window.open = True
            await fleet.look()
            await fleet.works("a")
            await fleet.look()
            job = (await fleet.jobs.queues.claim("b", wait=0)).job
            assert job is not None
            fleet.window.open = False
            await fleet.jobs.queues.finish("b", number, Finish(job.fence, "failed", 2))
            undo = await fleet.until(lambda: fleet.child("undo.yml"))
            assert sorted(host.node for host in undo.hosts) == ["a", "b"]
            assert (await fleet.jobs.show(number)).hosts[2].state == "cancelled"

    asyncio.run(main())


def test_no_batch_begins_while_the_window_is_closed(tmp_path: Path):
    async def main() -> None:
        async with house(tmp_path, ["a", "b"]) as fleet:
            number = await fleet.submit(rollout=Rollout(["1"]), window="w")
            await fleet.look()
            job = (await fleet.jobs.queues.claim("a", wait=0)).job
            assert job is not None
            fleet.window.open = False
            await fleet.jobs.queues.finish("a", number, Finish(job.fence, "succeeded", 0))
            for _ in range(3):
                await fleet.look()
            assert [host.state for host in (await fleet.jobs.show(number)).hosts] == ["succeeded", "held"]
            fleet.window.open = True
            await fleet.look()
            assert await fleet.works("b") == number

    asyncio.run(main())


@pytest.mark.parametrize("only", [False, True])
def test_a_lock_that_becomes_free_in_the_middle_of_a_round_is_the_next_ones(
    only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        async with house(tmp_path, ["a"]) as fleet:
            await fleet.submit(lock="x")
            await fleet.look()
            later, urgent = await fleet.submit(lock="x"), await fleet.submit(lock="x", priority=5)
            await fleet.look()
            seen, freed = fleet.records.changes.seen, list[int]()

            async def read(job: int) -> Seen:
                if job == later and not freed:  # whose turn it is was looked at before
                    freed.append(await fleet.works("a"))
                return await seen(job)

            if only:  # it is free, and something of the later one alone has changed
                await fleet.works("a")
                await fleet.driver.look(fleet.group, only={later})
            else:
                monkeypatch.setattr(fleet.records.changes, "seen", read)
                await fleet.look()
                assert freed
                await fleet.look()
            assert await fleet.works("a") == urgent

    asyncio.run(main())


def test_a_job_that_cannot_be_read_holds_up_no_other(tmp_path: Path):
    async def main() -> None:
        async with house(tmp_path, ["a"]) as fleet:
            broken = await fleet.submit(lock="x", priority=9)
            other = await fleet.submit(lock="y")
            async with fleet.database.write() as connection:
                await connection.execute(update(JOBS).where(JOBS.c.id == broken).values(spec="{}"))
            await fleet.look()
            assert (await fleet.records.queue("a"))[0].job == other

    asyncio.run(main())

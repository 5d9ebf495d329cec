"""When jobs may run: keys, priorities, retries, locks, approvals, time limits. Nodes are fakes that speak the API."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest

from llmagentos.api import job_control, jobs
from llmagentos.api.job_control import Retries
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput

pytestmark = pytest.mark.anyio


async def state(client, job, wanted, *, within=60.0):
    """The job once it is `wanted`; when that is waiting, once it is known for what."""
    deadline = time.monotonic() + within
    while (found := await jobs.show(client, job)).summary.state != wanted or (
        wanted == "waiting" and found.summary.waiting_for is None
    ):
        assert time.monotonic() < deadline, f"job {job} is {found.summary.state}: {found}"
        await asyncio.sleep(0.02)
    return found


def stored(server):
    with sqlite3.connect(server.state / "llmagentos.db") as database:
        return "".join(a + b for a, b in database.execute("SELECT spec, inventory FROM jobs")).encode()


async def told(client, job):
    return [(each.what, each.node, each.before, each.after) for each in await job_control.history(client, job)]


async def test_the_same_key_is_the_same_job_and_another_request_is_refused(server, join, submit):
    async with server.client() as admin, join(server, "n1"):
        first = await submit(admin, idempotency_key="k1")
        again = await submit(admin, idempotency_key="k1")
        assert again.summary.id == first.summary.id
        with pytest.raises(Conflict, match="belongs to another request") as caught:
            await submit(admin, idempotency_key="k1", check=True)
        assert caught.value.details["job"] == first.summary.id
        by_header = {"Idempotency-Key": "k2"}
        spec = jobs.JobSpec(first.spec.bundle, "site.yml")
        made = [
            await admin.post("/api/v1/jobs", spec, jobs.Job, headers=by_header) for _ in range(2)
        ]  # fmt: skip
        assert made[0].summary.id == made[1].summary.id != first.summary.id
        with pytest.raises(InvalidInput, match="Idempotency-Key"):
            await admin.post("/api/v1/jobs", first.spec, jobs.Job, headers=by_header)
        at_once = await asyncio.gather(*(submit(admin, idempotency_key="k3") for _ in range(8)))
        assert len({job.summary.id for job in at_once}) == 1


async def test_keys_are_everybodys_own(server, join, submit):
    async with server.client() as admin, join(server, "n1"):
        made = await admin.post("/api/v1/tokens", TokenRequest("operator", "ann"), NewToken)
        mine = await submit(admin, idempotency_key="k")
        async with server.client(made.token) as ann:
            assert (await submit(ann, idempotency_key="k")).summary.id != mine.summary.id


async def test_higher_priorities_come_first_and_each_in_its_order(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        running = (await submit(admin)).summary.id
        job = await node.claimed()
        numbers = [(await submit(admin, priority=priority)).summary.id for priority in (0, 5, 0, 5, -5)]
        assert (await jobs.show(admin, numbers[2])).hosts[0].ahead == 4
        order = []
        while job is not None:
            order.append(job.job)
            await node.work(job)
            job = await node.claim(wait=0)
        assert order == [running, numbers[1], numbers[3], numbers[0], numbers[2], numbers[4]]


async def test_a_node_tries_again_by_rule_and_every_attempt_is_told(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        number = (await submit(admin, retries=Retries(2, ["failed"], 0.2))).summary.id
        first = await node.claimed()
        await node.work(first, status="failed", code=2)
        await jobs.finish(node.client, number, jobs.Finish(first.fence, "failed", 2))  # said again: nothing changes
        [host] = (await jobs.show(admin, number)).hosts
        assert (host.state in ("held", "queued"), host.attempt) == (True, 2), "it was held, as its history says"
        second = await node.claimed()
        assert (second.job, second.attempt, second.next_seq, second.resumed) == (number, 2, 1, False)
        with pytest.raises(Conflict):
            await jobs.renew(node.client, number, first.fence)
        await node.work(second)
        done = await state(admin, number, "succeeded")
        assert done.hosts[0].attempt == 2
        hosts = [line[2:] for line in await told(admin, number) if line[0] == "host"]
        assert hosts == [
            ("held", "queued"),
            ("queued", "running"),
            ("running", "held"),
            ("held", "queued"),
            ("queued", "running"),
            ("running", "succeeded"),
        ]
        lines = [r.event.text for r in await jobs.events(admin, number) if isinstance(r.event, jobs.LogLine)]
        assert lines == ["attempt 1 failed with exit code 2; attempt 2 of 3 in 0.2 s", "attempt 2 begins"]


async def test_attempts_end_and_only_what_the_rule_names_is_tried_again(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        number = (await submit(admin, retries=Retries(1, ["unreachable"], 0.0))).summary.id
        await node.work(await node.claimed(), status="unreachable", code=4)
        await node.work(await node.claimed(), status="unreachable", code=4)
        assert (await state(admin, number, "failed")).summary.exit_code == 4
        other = (await submit(admin, retries=Retries(1, ["unreachable"], 0.0))).summary.id
        await node.work(await node.claimed(), status="failed", code=2)
        assert (await state(admin, other, "failed")).hosts[0].attempt == 1


async def test_one_job_at_a_time_has_a_lock(server, join, submit):
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        first = (await submit(admin, lock="database", limit="n1")).summary.id
        await state(admin, first, "queued")
        second = (await submit(admin, lock="database", limit="n2")).summary.id
        third = (await submit(admin, lock="database", limit="n2", priority=5)).summary.id
        await state(admin, third, "waiting")
        free = (await submit(admin, limit="n2")).summary.id
        job = await one.claimed()
        assert job.job == first
        waiting = await state(admin, second, "waiting")
        assert waiting.summary.waiting_for.reason == "lock"
        assert waiting.summary.waiting_for.detail == f"database (job {first})"
        other = await two.claimed()
        assert other.job == free, "what waits for a lock is in nobody's way"
        await two.work(other)
        await one.work(job, status="failed", code=2)
        next_ = await two.claimed()
        assert next_.job == third, "the higher priority is next"
        await jobs.cancel(admin, third)
        await two.work(next_, status="cancelled", code=1)
        assert (await two.claimed()).job == second


async def test_a_lock_outlives_a_killed_server_and_goes_with_its_job(server, join, submit):
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        first = (await submit(admin, lock="db", limit="n1")).summary.id
        job = await one.claimed()
        second = (await submit(admin, lock="db", limit="n2")).summary.id
        server.kill()
        await asyncio.to_thread(server.start)
        assert await two.claim(wait=0.5) is None
        job = await one.claimed()
        assert (job.job, job.resumed) == (first, True)
        await admin.delete("/api/v1/nodes/n1")
        await state(admin, first, "failed")
        assert (await two.claimed()).job == second


async def test_a_job_that_takes_too_long_is_stopped_everywhere_and_has_failed(server, join, submit):
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2"):
        waiting = asyncio.create_task(one.claimed())  # so that it begins before its time is over
        number = (await submit(admin, total_timeout_s=2)).summary.id
        job = await waiting
        deadline = time.monotonic() + 60
        while not (await jobs.renew(one.client, number, job.fence)).cancel:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await jobs.finish(one.client, number, jobs.Finish(job.fence, "cancelled", 1, None, "cancelled while it ran"))
        done = await state(admin, number, "failed")
        assert [(host.state, host.message) for host in done.hosts] == [
            ("failed", "the job took longer than 2 s"),
            ("failed", "the job took longer than 2 s"),
        ]


async def test_somebody_has_to_approve_and_the_first_word_counts(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        made = await admin.post("/api/v1/tokens", TokenRequest("operator", "ann"), NewToken)
        viewer = await admin.post("/api/v1/tokens", TokenRequest("viewer", "vic"), NewToken)
        number = (await submit(admin, approval="required", approvers=["operator:*"])).summary.id
        assert await node.claim(wait=0.3) is None
        with pytest.raises(Forbidden, match="may not approve"):
            await jobs.approve(admin, number)
        async with server.client(viewer.token) as vic:
            with pytest.raises(Forbidden, match=r"jobs\.approve"):
                await jobs.approve(vic, number)
        server.kill()
        await asyncio.to_thread(server.start)
        assert (await jobs.show(admin, number)).summary.state == "waiting_approval"
        async with server.client(made.token) as ann:
            said = await asyncio.gather(
                jobs.approve(ann, number, "looks right"), jobs.deny(ann, number), return_exceptions=True
            )
        assert sum(isinstance(each, Conflict) for each in said) == 1
        found = await jobs.show(admin, number)
        assert found.approval.by == "operator:ann"
        if found.approval.state == "approved":
            assert (await node.claimed()).job == number
        denied = (await submit(admin, approval="required")).summary.id
        assert (await jobs.deny(admin, denied, "not today")).summary.state == "cancelled"
        assert (await jobs.show(admin, denied)).message == "denied by admin:admin: not today"
        with pytest.raises(Conflict, match="denied by admin:admin before"):
            await jobs.approve(admin, denied)
        assert ("approval", None, "waiting", "denied") in await told(admin, denied)


async def test_a_window_holds_a_job_until_it_opens(start_server, join, submit):
    server = start_server(
        "windows:\n"
        "  always: {cron: '* * * * *', duration: 2m}\n"
        "  leap: {cron: '0 0 29 2 *', duration: 1h, zone: Europe/Berlin}\n"
    )
    async with server.client() as admin, join(server, "n1") as node:
        with pytest.raises(InvalidInput, match="no maintenance window 'alway'"):
            await submit(admin, window="alway")
        closed = await submit(admin, window="leap")
        assert (await submit(admin, window="always")).summary.id == (await node.claimed()).job
        waiting = await state(admin, closed.summary.id, "waiting")
        assert waiting.summary.waiting_for.reason == "window"
        assert waiting.summary.waiting_for.until > time.time()
        assert (await jobs.cancel(admin, closed.summary.id)).summary.state == "cancelled"


async def test_windows_change_without_a_restart(start_server, join, submit):
    leap = "windows:\n  leap: {cron: '0 0 29 2 *', duration: 1h}\n"
    server = start_server(leap)
    async with server.client() as admin, join(server, "n1") as node:
        closed = await submit(admin, window="leap")
        await state(admin, closed.summary.id, "waiting")
        server.file.write_text("windows:\n  leap: {cron: 'never', duration: 1h}\n")
        with pytest.raises(InvalidInput, match="no maintenance window 'other'"):
            await submit(admin, window="other")
        server.file.write_text(leap.replace("0 0 29 2 *", "* * * * *") + "  other: {cron: '* * * * *', duration: 2m}\n")
        assert (await node.claimed(wait=60)).job == closed.summary.id
        assert (await submit(admin, window="other")).spec.window == "other"


async def test_secrets_reach_the_node_and_nobody_else(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        made = await submit(admin, extra_vars={"user": "ann", "password": "hunter2"}, secrets=["password"])
        assert made.spec.extra_vars == {"user": "ann", "password": "********"}
        if server.database.startswith("sqlite"):
            assert b"hunter2" not in stored(server), "not in clear while it waits either"
        job = await node.claimed()
        assert job.extra_vars == {"user": "ann", "password": "********"}
        assert node.secrets(job) == {"password": "hunter2"}
        await node.work(job)
        await state(admin, made.summary.id, "succeeded")
        never = await submit(admin, extra_vars={"password": "hunter2"}, secrets=["password"], approval="required")
        if server.database.startswith("sqlite"):
            assert b'"sealed_variables":{"n1"' in stored(server)
        await jobs.deny(admin, never.summary.id)
        if server.database.startswith("sqlite"):
            assert b"sealed_variables" not in stored(server), "nor is what nobody opened kept"
        server.stop()
        assert not server.database.startswith("sqlite") or b"hunter2" not in stored(server), "forgotten with its end"

"""Jobs that somebody has to approve, in one list with tool calls: who may, who is told, and when it is too late."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from integration.agents.test_approvals import Hook, someone
from integration.fleet.conftest import joined
from llmagentos.api import approvals, job_control, jobs
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job
from llmagentos.core.errors import Conflict, Forbidden, NotFound
from support.server import StartServer

pytestmark = pytest.mark.anyio
Submit = Callable[..., Any]


async def until(condition: Callable[[], bool], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def ended(client: ApiClient, job: int) -> Job:
    async with asyncio.timeout(60):
        while (found := await jobs.show(client, job)).summary.ended is None:
            await asyncio.sleep(0.02)
    return found


async def test_one_list_one_way_to_answer_one_webhook(start_server: StartServer, submit: Submit) -> None:
    with Hook() as hook:
        server = start_server(f"approvals: {{webhook: {{url: '{hook.url}', token: {{env: PATH}}}}}}")
        async with server.client() as admin, someone(server, "operator", "ann") as ann, joined(server, "n1"):
            vars_ = {"version": "2", "password": "hunter2"}
            job = await submit(admin, approval="required", extra_vars=vars_, secrets=["password"], limit="n1")
            (asked,) = await approvals.listing(ann)
            number = job.summary.id
            assert (asked.id, asked.kind, asked.job, asked.tool) == (f"job-{number}", "job", number, "site.yml")
            assert asked.requested_by == "admin:admin"
            assert asked.arguments["version"] == "2"
            assert "hunter2" not in str(asked)
            shown = await asyncio.to_thread(server.llmctl, "approvals", "--json")
            assert [one["kind"] for one in json.loads(shown.stdout)] == ["job"]

            await until(lambda: len(hook.told) == 2)  # it was broken the first time
            assert {told[2]["approval"]["id"] for told in hook.told} == {asked.id}
            async with asyncio.timeout(60):
                while not (await approvals.listing(ann))[0].notified:
                    await asyncio.sleep(0.02)

            with pytest.raises(Forbidden, match="somebody else has to approve"):
                await approvals.approve(admin, asked.id)
            done = await approvals.approve(ann, asked.id, "looks right")
            assert (done.approved, done.by, done.approval.job) == (True, "operator:ann", number)
            assert await approvals.listing(ann) == []
            with pytest.raises(Conflict, match="approved by operator:ann before"):
                await approvals.deny(ann, asked.id)
            with pytest.raises(NotFound):
                await approvals.deny(ann, "job-4711")
            async with someone(server, "viewer", "vic") as vic:
                with pytest.raises(Forbidden):
                    await approvals.approve(vic, asked.id)
            changes = [each.after for each in await job_control.history(admin, number) if each.what == "approval"]
            assert changes == ["approved"]

            own = (await submit(admin, approval="required", approvers=["admin:admin"])).summary.id
            other = (await submit(admin, approval="required")).summary.id
            for word, which in (("approve", own), ("deny", other)):
                said = await asyncio.to_thread(server.llmctl, word, f"job-{which}")
                assert said.returncode == 0, said.stderr
            assert (await ended(admin, other)).message == "denied by admin:admin"
            assert len(hook.told) >= 2


async def test_nobody_approves_in_time_and_who_may_approve_his_own(start_server: StartServer, submit: Submit) -> None:
    server = start_server("approvals: {own_jobs: true}")
    async with server.client() as admin, joined(server, "n1"):
        mine, late = [(await submit(admin, approval="required")).summary.id for _ in range(2)]
        await approvals.approve(admin, f"job-{mine}")
        await asyncio.to_thread(server.stop)
        server.file.write_text("approvals: {jobs_timeout_s: 0.1}")
        await asyncio.to_thread(server.start)
        found = await ended(admin, late)
        assert (found.summary.state, found.summary.exit_code) == ("cancelled", 1)
        assert found.message == "nobody approved it within 0.1 s"
        assert found.approval is not None
        assert (found.approval.state, found.approval.by) == ("expired", "nobody")
        with pytest.raises(Conflict, match="expired by nobody"):
            await approvals.approve(admin, f"job-{late}")
        assert (await jobs.show(admin, mine)).approval.state == "approved"  # type: ignore[union-attr]

"""Jobs over the API: order, fencing, restarts, duplicates, cancelling. The node is a fake that speaks the API."""

from __future__ import annotations

import asyncio

import pytest

from llmagentos.api import jobs, nodes
from llmagentos.api.http import ConnectionLost
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated

pytestmark = pytest.mark.anyio


async def test_jobs_come_in_order_and_one_at_a_time(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        first, second = await submit(admin), await submit(admin)
        assert second.hosts[0].ahead == 1
        job = await node.claimed()
        assert (job.job, job.host, job.playbook, job.resumed) == (first.summary.id, "n1", "site.yml", False)
        again = await node.claimed()
        assert (again.job, again.resumed) == (first.summary.id, True), "one at a time, and the first first"
        assert await jobs.download_bundle(node.client, job.bundle)
        await node.work(again)
        done = await jobs.show(admin, first.summary.id)
        assert (done.summary.state, done.summary.exit_code) == ("succeeded", 0)
        assert done.hosts[0].recap == jobs.Stats(ok=3)
        assert (await node.claimed()).job == second.summary.id


async def test_an_old_fence_is_refused_everywhere(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        await submit(admin)
        old, new = await node.claimed(), await node.claimed()
        assert new.fence > old.fence
        with pytest.raises(Conflict, match="lease"):
            await jobs.renew(node.client, old.job, old.fence)
        with pytest.raises(Conflict, match="lease"):
            await jobs.send_events(node.client, old.job, old.fence, node.events(1, 1))
        with pytest.raises(Conflict, match="lease"):
            await jobs.finish(node.client, old.job, jobs.Finish(old.fence, "succeeded", 0))
        assert not (await jobs.renew(node.client, new.job, new.fence)).cancel


async def test_events_sent_again_are_kept_once_and_gaps_are_refused(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        await submit(admin)
        job = await node.claimed()
        events = node.events(1, 4)
        assert (await jobs.send_events(node.client, job.job, job.fence, events[:3])).next_seq == 4
        assert (await jobs.send_events(node.client, job.job, job.fence, events)).next_seq == 5
        with pytest.raises(jobs.EventGap) as caught:
            await jobs.send_events(node.client, job.job, job.fence, node.events(7, 1))
        assert caught.value.details["next_seq"] == 5
        records = await jobs.events(admin, job.job)
        assert [(record.id, record.event.seq) for record in records] == [(i, i) for i in range(1, 5)]
        assert (await node.claimed()).next_seq == 5


async def test_the_end_said_twice_changes_nothing(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        await submit(admin)
        job = await node.claimed()
        end = jobs.Finish(job.fence, "failed", 2, jobs.Stats(failed=1), "task failed")
        await jobs.finish(node.client, job.job, end)
        await jobs.finish(node.client, job.job, end)
        shown = await jobs.show(admin, job.job)
        assert (shown.summary.state, shown.summary.exit_code, shown.hosts[0].message) == ("failed", 2, "task failed")


async def test_a_job_survives_the_death_of_the_server(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        await submit(admin)
        await submit(admin)
        job = await node.claimed()
        await jobs.send_events(node.client, job.job, job.fence, node.events(1, 2))
        server.kill()
        server.start()
        with pytest.raises(ConnectionLost):  # the connection was the dead server's
            await jobs.renew(node.client, job.job, job.fence)
        ack = await jobs.renew(node.client, job.job, job.fence)
        assert ack.next_seq == 3, "the lease lives on, and so do the events"
        await jobs.send_events(node.client, job.job, job.fence, node.events(1, 3))
        again = await node.claimed()
        assert (again.job, again.resumed) == (job.job, True)
        assert again.fence > job.fence, "fences grow over restarts"
        await node.work(again)
        assert (await node.claimed()).job == job.job + 1
        assert len(await jobs.events(admin, job.job)) == 6


async def test_a_waiting_claim_is_woken(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        assert await node.claim(wait=0) is None
        waiting = asyncio.create_task(node.claim(wait=60))
        await asyncio.sleep(0)
        begun = asyncio.get_running_loop().time()
        sent = await submit(admin)
        job = await waiting
        assert job is not None and job.job == sent.summary.id
        assert asyncio.get_running_loop().time() - begun < 40, "not when its wait was over"


async def test_a_node_works_only_its_own_queue(server, join, submit):
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        sent = await submit(admin, limit="n1")
        assert sent.summary.nodes == ["n1"]
        assert await two.claim(wait=0) is None
        job = await one.claimed()
        with pytest.raises(Forbidden):
            await jobs.download_bundle(two.client, job.bundle)
        with pytest.raises(Conflict):
            await jobs.renew(two.client, job.job, job.fence)
        with pytest.raises(NotFound):
            await jobs.finish(two.client, job.job, jobs.Finish(job.fence, "succeeded", 0))
        with pytest.raises(Forbidden):
            await jobs.show(two.client, job.job)
        with pytest.raises(Forbidden):
            await jobs.claim(admin, wait=0)


async def test_cancelling_takes_it_out_of_the_queue_or_tells_the_node(server, join, submit):
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        sent = await submit(admin)
        job = await one.claimed()
        shown = await jobs.cancel(admin, sent.summary.id)
        assert {host.node: host.state for host in shown.hosts} == {"n1": "cancelling", "n2": "cancelled"}
        assert await two.claim(wait=0) is None
        assert (await jobs.renew(one.client, job.job, job.fence)).cancel
        assert (await one.claimed()).cancel
        job = await one.claimed()
        await jobs.finish(one.client, job.job, jobs.Finish(job.fence, "cancelled", 1))
        ended = await jobs.show(admin, sent.summary.id)
        assert (ended.summary.state, ended.summary.exit_code) == ("cancelled", 1)
        with pytest.raises(Conflict):
            await jobs.cancel(admin, sent.summary.id)


async def test_one_unreachable_and_one_failed_make_exit_code_4(server, join, submit):
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        sent = await submit(admin)
        await one.work(await one.claimed(), status="failed", code=2)
        assert (await jobs.show(admin, sent.summary.id)).summary.state == "running"
        await two.work(await two.claimed(), status="unreachable", code=4)
        ended = (await jobs.show(admin, sent.summary.id)).summary
        assert (ended.state, ended.exit_code) == ("failed", 4)
        records = await jobs.events(admin, sent.summary.id)
        assert [record.id for record in records] == list(range(1, 7))
        assert {record.node for record in records} == {"n1", "n2"}


async def test_following_shows_every_event_once_and_ends_with_the_job(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        sent = await submit(admin)
        seen: list[jobs.JobRecord | jobs.Job] = []

        async def watch() -> None:
            async with jobs.follow(admin, sent.summary.id) as items:
                seen.extend([item async for item in items])

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(watch())
            await node.work(await node.claimed())
        assert [item.id for item in seen if isinstance(item, jobs.JobRecord)] == [1, 2, 3]
        last = seen[-1]
        assert isinstance(last, jobs.Job) and last.summary.state == "succeeded"
        async with jobs.follow(admin, sent.summary.id, after=2) as items:
            late = [item async for item in items]
        assert [item.id for item in late if isinstance(item, jobs.JobRecord)] == [3]


async def test_a_faulty_playbook_is_refused_before_anything_is_queued(server, join, submit):
    async with server.client() as admin, join(server, "web1") as node:
        with pytest.raises(InvalidInput, match=r"site\.yml:3: unknown task module 'coppy'.*'copy'"):
            await submit(admin, "- hosts: all\n  tasks:\n    - coppy: {}\n")
        with pytest.raises(InvalidInput, match=r"site\.yml:1: unknown host or group 'n2'"):
            await submit(admin, "- hosts: n2\n  tasks: []\n")
        with pytest.raises(InvalidInput, match=r"hosts\.ini:2: unknown host 'web3'") as caught:
            await submit(admin, inventory=[jobs.InventorySource("hosts.ini", "[web]\nweb3\n")])
        assert caught.value.hint == "did you mean 'web1'?"
        with pytest.raises(NotFound):
            await jobs.submit(admin, jobs.JobSpec(bundle="0" * 64, playbook="site.yml"))
        assert await jobs.listing(admin) == []
        assert await node.claim(wait=0) is None


async def test_a_bundle_has_to_be_what_its_name_says(server):
    async with server.client() as admin:
        with pytest.raises(InvalidInput, match="SHA-256"):
            await jobs.upload_bundle(admin, "0" * 64, b"something")
        with pytest.raises(InvalidInput, match="64 hexadecimal"):
            await jobs.upload_bundle(admin, "xyz", b"something")


async def test_a_removed_node_is_out_at_once(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node, join(server, "n2"):
        sent = await submit(admin)
        await node.claimed()
        await nodes.remove(admin, "n1")
        with pytest.raises(Unauthenticated):
            await nodes.beat(node.client, nodes.Heartbeat())
        shown = await jobs.show(admin, sent.summary.id)
        assert {host.node: host.state for host in shown.hosts} == {"n1": "interrupted", "n2": "queued"}
        assert [found.name for found in await nodes.listing(admin)] == ["n2"]


async def test_listing_pages_and_filters(server, join, submit):
    async with server.client() as admin, join(server, "n1"), join(server, "n2"):
        ids = [(await submit(admin, limit="n1" if i % 2 else "n2", check=bool(i % 2))).summary.id for i in range(4)]
        assert [job.id for job in await jobs.listing(admin, limit=2)] == [ids[3], ids[2]]
        assert [job.id for job in await jobs.listing(admin, before=ids[1])] == [ids[0]]
        only = await jobs.listing(admin, node="n1")
        assert [job.id for job in only] == [ids[3], ids[1]] and only[0].modes == ["check"]
        with pytest.raises(InvalidInput):
            await admin.get("/api/v1/jobs/abc", jobs.Job)

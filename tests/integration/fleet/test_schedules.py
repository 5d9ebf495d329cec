"""Schedules and job templates over the API, with two servers on one database."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from llmagentos.api import jobs, schedules, templates
from llmagentos.api.schedules import ScheduleSpec, TemplateUse
from llmagentos.api.templates import Launch, Parameter, TemplateSpec
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound

pytestmark = pytest.mark.anyio


async def until(condition, *, within=60.0):
    deadline = time.monotonic() + within
    while not (found := await condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)
    return found


async def spec_of(submit, admin):
    """A job that can be queued, and is not."""
    made = await submit(admin)
    await jobs.cancel(admin, made.summary.id)
    return made.spec


async def test_two_servers_fire_each_time_once_and_one_goes_on_alone(two_servers, join, submit):
    one, two = two_servers
    async with one.client() as first, two.client() as second, join(one, "n1"):
        made = await submit(first)
        await submit(second)  # the blobs of each are its own
        job = jobs.JobSpec(made.spec.bundle, "site.yml")
        names = [f"s{i}" for i in range(4)]
        for name in names:
            await schedules.add(first, name, ScheduleSpec(cron="*/3 * * * * *", job=job))

        async def fired(client=second):
            found = [await schedules.show(client, name) for name in names]
            return [each.fires for each in found] if all(each.fires for each in found) else None

        await until(fired)
        one.kill()
        await until(lambda: at_least(second, names, 2))
        for name in names:
            await schedules.pause(second, name, paused=True)

        async def all_made():
            fires = [fire for name in names for fire in (await schedules.show(second, name)).fires]
            return fires if all(fire.job for fire in fires) else None

        fires = await until(all_made)
        made = [job for job in await jobs.listing(second, limit=100) if job.origin]
        assert len({fire.job for fire in fires}) == len(fires) == len(made), "one job for each time"
        assert {job.created_by for job in made} == {f"schedule:{name}" for name in names}


async def at_least(client, names, count):
    found = [await schedules.show(client, name) for name in names]
    return all(len([fire for fire in each.fires if fire.job]) >= count for each in found)


async def test_a_schedule_is_paused_resumed_run_out_of_turn_and_deleted(server, join, submit):
    async with server.client() as admin, join(server, "n1"):
        job = jobs.JobSpec((await spec_of(submit, admin)).bundle, "site.yml", check=True, diff=True)
        spec = ScheduleSpec(cron="30 2 * * *", zone="Europe/Berlin", job=job)
        made = await schedules.add(admin, "drift", spec)
        assert len(made.next) == 3 and not made.paused
        with pytest.raises(Conflict, match="already"):
            await schedules.add(admin, "drift", spec)
        assert (await schedules.pause(admin, "drift", paused=True)).next == []
        out_of_turn = await schedules.run_now(admin, "drift")
        assert (out_of_turn.summary.origin, out_of_turn.summary.modes) == ("schedule:drift", ["check", "diff"])
        slower = await schedules.change(admin, "drift", ScheduleSpec(every_s=7200))
        assert slower.spec.every_s == 7200
        assert slower.spec.job == made.spec.job, "what it runs stays"
        with pytest.raises(InvalidInput, match="either cron or every_s"):
            await schedules.change(admin, "drift", ScheduleSpec())
        with pytest.raises(NotFound, match="no schedule 'drif'"):
            await schedules.change(admin, "drif", ScheduleSpec(every_s=7200))
        assert (await schedules.pause(admin, "drift", paused=False)).fires[0].job == out_of_turn.summary.id
        with pytest.raises(NotFound, match="drifts"):
            await schedules.show(admin, "drifts")
        await schedules.delete(admin, "drift")
        assert await schedules.listing(admin) == []
        for bad, said in [
            (ScheduleSpec(cron="61 * * * *", job=job), "no cron expression"),
            (ScheduleSpec(cron="* * * * *", every_s=60, job=job), "either cron or every_s"),
            (ScheduleSpec(cron="* * * * *", zone="Mars/Olympus", job=job), "no time zone"),
            (ScheduleSpec(cron="* * * * *"), "either a job or a template"),
            (ScheduleSpec(cron="* * * * *", job=jobs.JobSpec(job.bundle, "gone.yml")), "no playbook 'gone.yml'"),
        ]:
            with pytest.raises(InvalidInput, match=said):
                await schedules.add(admin, "bad", bad)


async def test_a_template_is_launched_by_its_survey_and_by_whom_it_allows(server, join, submit):
    async with server.client() as admin, join(server, "n1") as node:
        job = jobs.JobSpec((await spec_of(submit, admin)).bundle, "site.yml", extra_vars={"mode": "fast"})
        asked = [
            Parameter("release", regex=r"v\d+"),
            Parameter("count", "int", min=1, max=3, default=1),
            Parameter("password", "secret"),
        ]
        spec = TemplateSpec(job, parameters=asked, allow=["operator:ann", "admin:*"])
        assert (await templates.apply(admin, "deploy", spec)).change == "created"
        assert (await templates.apply(admin, "deploy", spec)).change == "unchanged"
        good = {"release": "v1", "password": "hunter2"}
        made = await templates.launch(admin, "deploy", Launch(good, "k"))
        assert (await templates.launch(admin, "deploy", Launch(good, "k"))).summary.id == made.summary.id
        assert made.summary.origin == "template:deploy"
        assert made.spec.extra_vars == {"mode": "fast", "release": "v1", "count": 1, "password": "********"}
        claimed = await node.claimed()
        assert node.secrets(claimed) == {"password": "hunter2"}
        assert claimed.literal == ["release", "password"], "what the survey was answered is no template"
        for bad, name in [({"release": "1"}, "release"), ({"count": 4}, "count"), ({"relaese": "v1"}, "relaese")]:
            with pytest.raises(InvalidInput, match=name) as caught:
                await templates.launch(admin, "deploy", Launch(good | bad))
            assert (caught.value.code, caught.value.details["parameter"]) == ("bad_parameter", name)
        for who, allowed in [("ann", True), ("bob", False)]:
            token = (await admin.post("/api/v1/tokens", TokenRequest("operator", who), NewToken)).token
            async with server.client(token) as person:
                if allowed:
                    await templates.launch(person, "deploy", Launch(good))
                else:
                    with pytest.raises(Forbidden, match="may not launch"):
                        await templates.launch(person, "deploy", Launch(good))
        with pytest.raises(InvalidInput, match="secret 'password'"):
            await schedules.add(
                admin, "nightly", ScheduleSpec(every_s=60, template=TemplateUse("deploy", {"release": "v1"}))
            )


async def test_llmctl_changes_what_is_given_and_says_what_it_cannot(server, join, submit, tmp_path):
    async with server.client() as admin, join(server, "n1"):
        job = await spec_of(submit, admin)
        playbook = tmp_path / "playbook" / "site.yml"
        await templates.apply(admin, "deploy", TemplateSpec(job, parameters=[Parameter("release"), Parameter("to")]))

        async def llmctl(*words):
            return await asyncio.to_thread(server.llmctl, "schedules", *words)

        added = await llmctl("add", "drift", str(playbook), "--check", "--cron", "30 2 * * *", "--lock", "web")
        assert added.returncode == 0, added.stderr
        made = await schedules.show(admin, "drift")
        done = await llmctl("change", "drift", "--zone", "Asia/Shanghai", "--priority", "7", "--unset", "lock")
        assert done.returncode == 0, done.stderr
        assert "next at 20" in done.stderr
        found = (await schedules.show(admin, "drift")).spec
        assert (found.cron, found.zone) == ("30 2 * * *", "Asia/Shanghai")
        assert found.job == msgspec.structs.replace(made.spec.job, priority=7, lock=None)

        playbook.write_text(playbook.read_text().replace("hello", "goodbye"))
        assert (await llmctl("change", "drift", str(playbook))).returncode == 0
        assert (await schedules.show(admin, "drift")).spec.job.bundle != found.job.bundle
        done = await llmctl("change", "drift", "--template", "deploy", "-p", "release=v1", "-p", "to=eu")
        assert done.returncode == 0, done.stderr
        assert (await llmctl("change", "drift", "-p", "release=v2", "--every", "2h")).returncode == 0
        found = (await schedules.show(admin, "drift")).spec
        assert (found.every_s, found.cron, found.job) == (7200, None, None)
        assert found.template == TemplateUse("deploy", {"release": "v2", "to": "eu"})
        for words, said in [
            (["drift"], "nothing to change"),
            (["drift", "--limit", "n1"], "no options of a job"),
            (["drift", "--cron", "61 * * * *"], "no cron expression"),
            (["drift", "--unset", "name"], "none of: jitter"),
            (["drift", "-p", "relaese=v3"], "no parameter 'relaese'"),
        ]:
            failed = await llmctl("change", *words)
            assert (failed.returncode, said in failed.stderr) == (2, True), failed.stderr
        failed = await llmctl("change", "drif", "--every", "3h")
        assert "no schedule 'drif'" in failed.stderr
        assert failed.returncode != 0

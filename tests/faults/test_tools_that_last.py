"""`kill -9` of the server while a run waits for what goes on without it, a job or a remote task: it is found again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from faults.test_runs import by_progress
from integration.agents.conftest import house, talker  # noqa: F401
from integration.fleet.conftest import PLAYBOOK, joined
from llmagentos.api import jobs, runs
from llmagentos.api.client import ApiClient
from llmagentos.api.runs import RunState, ToolAnswered
from support.remote_agent import RemoteAgent
from support.server import ServerProcess, eventually
from support.talker import Talker

pytestmark = pytest.mark.anyio
OPS = "{kind: Agent, name: ops, model: talker, tools: [{playbook: site.yml, nodes: [web1]}]}"
PATIENCE_S = 60.0


async def again(house: ServerProcess) -> None:  # noqa: F811
    house.kill()
    await asyncio.to_thread(house.start)


async def events(client: ApiClient, run: str, kind: str) -> list[Any]:
    return [event.data for event in await runs.events(client, run) if event.type == kind]


async def claimed(client: ApiClient, run: str, times: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(await events(client, run, "claimed")) < times:
            await asyncio.sleep(0.05)


async def over(client: ApiClient, run: str) -> None:
    """Wait for its end, which is a good one."""
    async with asyncio.timeout(PATIENCE_S):
        while not (ended := await runs.get(client, run)).state.ended:
            await asyncio.sleep(0.05)
    assert (ended.state, ended.answer) == (RunState.SUCCEEDED, "The kettle costs 39.90 EUR.")


async def test_a_job_is_found_again_and_not_begun_twice(house: ServerProcess, talker: Talker) -> None:  # noqa: F811
    """Killed while the job waits for its node, and again while the node works on it."""
    talker.say = by_progress({0: '{"tool": "site", "arguments": {}}', 1: '{"tool": "answer"}'})  # type: ignore[assignment]
    (house.directory / "site.yml").write_text(PLAYBOOK)
    (house.directory / "ops.yaml").write_text(OPS)
    async with joined(house, "web1") as node, house.client() as client:
        done = await asyncio.to_thread(house.llmctl, "apply", "-f", "ops.yaml")
        assert done.returncode == 0, done.stderr
        run = (await runs.start(client, "ops", "Say it.")).id
        async with asyncio.timeout(PATIENCE_S):
            while not await jobs.listing(client):
                await asyncio.sleep(0.05)
        await again(house)
        await claimed(client, run, 2)
        job = await node.claimed()
        await again(house)
        await claimed(client, run, 3)
        await node.work(job)
        await over(client, run)
        (answered,) = await events(client, run, "tool_answered")
        assert isinstance(answered, ToolAnswered)
        assert (answered.error, answered.result["job"], answered.result["state"]) == (None, job.job, "succeeded")
        assert len(await events(client, run, "tool_called")) == 1
        assert [one.id for one in await jobs.listing(client)] == [job.job]


async def test_a_remote_task_is_found_again_and_not_begun_twice(house: ServerProcess, talker: Talker) -> None:  # noqa: F811
    """The remote agent would begin another one, even for a message that it knows; for a while it is away."""
    call = '{"tool": "remote", "arguments": {"request": "work"}}'
    talker.say = by_progress({0: call, 1: '{"tool": "answer"}'})  # type: ignore[assignment]
    async with RemoteAgent().running() as remote, house.client() as client:
        use = f"{{a2a: '{remote.url}', name: remote}}"
        (house.directory / "far.yaml").write_text(f"{{kind: Agent, name: far, model: talker, tools: [{use}]}}")
        done = await asyncio.to_thread(house.llmctl, "apply", "-f", "far.yaml")
        assert done.returncode == 0, done.stderr
        run = (await runs.start(client, "far", "Do it.")).id
        await eventually(lambda: remote.looks)
        remote.gone = True
        await again(house)
        await claimed(client, run, 2)
        async with asyncio.timeout(PATIENCE_S):
            while (wait := (await runs.get(client, run)).wait) is None:
                await asyncio.sleep(0.05)
        assert wait.reason == "tools"
        assert wait.told.startswith(f"the A2A agent '{remote.url}' cannot be asked")
        shown = await asyncio.to_thread(house.llmctl, "ps")
        assert "tools that are away: the A2A agent" in shown.stdout, shown.stderr
        remote.gone = False
        remote.done.set()
        await over(client, run)
        (answered,) = await events(client, run, "tool_answered")
        assert (answered.error, answered.result) == (None, "task-1 is done")
        assert remote.begun == ["work"]

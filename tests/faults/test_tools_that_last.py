"""`kill -9` of the server while a run waits for what goes on without it: a job. The run finds it again."""

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
from support.server import ServerProcess
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
        async with asyncio.timeout(PATIENCE_S):
            while not (ended := await runs.get(client, run)).state.ended:
                await asyncio.sleep(0.05)
        assert (ended.state, ended.answer) == (RunState.SUCCEEDED, "The kettle costs 39.90 EUR.")
        (answered,) = await events(client, run, "tool_answered")
        assert isinstance(answered, ToolAnswered)
        assert (answered.error, answered.result["job"], answered.result["state"]) == (None, job.job, "succeeded")
        assert len(await events(client, run, "tool_called")) == 1
        assert [one.id for one in await jobs.listing(client)] == [job.job]

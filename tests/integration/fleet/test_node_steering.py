"""Cordon, drain, labels and filters: over the API, the command line and the console, with a real node agent."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from llmagentos.api import nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.http import HttpClient
from llmagentos.api.nodes import NodeSummary
from llmagentos.core.errors import InvalidInput
from support.node import NodeProcess
from support.server import ServerProcess, StartServer

UNIT = "command: [python3, -c, 'import time; time.sleep(600)']\n"


async def until(admin: ApiClient, name: str, wanted: str, *, running: int | None = None) -> NodeSummary:
    """The node, once its availability is `wanted` and so many modules run."""
    deadline = time.monotonic() + 60
    while True:
        found = (await nodes.show(admin, name)).summary
        count = sum(module.state == "running" for module in found.modules)
        if found.availability == wanted and running in (None, count):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


@pytest.mark.anyio
async def test_a_cordoned_node_gets_no_new_job_and_goes_on_with_its_own(server, join, submit):
    async with server.client() as admin, join(server, "n1") as one:
        first, second = await submit(admin), await submit(admin)
        job = await one.claimed()
        assert (await nodes.act(admin, "n1", "cordon")).availability == "cordoned"
        assert (await one.claimed()).job == job.job == first.summary.id
        await one.work(await one.claimed())
        assert await one.claim(wait=0.2) is None
        waiting = asyncio.create_task(one.claim(wait=60))
        await nodes.act(admin, "n1", "uncordon")
        given = await waiting
        assert given is not None
        assert given.job == second.summary.id
        for _ in range(21):  # newer ones, which wait
            await submit(admin)
        assert (await nodes.act(admin, "n1", "drain")).availability == "draining"
        assert (await nodes.beat(one.client, nodes.Heartbeat())).drain
        assert (await nodes.show(admin, "n1")).summary.availability == "draining", "it works on a job"
        await one.work(given)
        await nodes.beat(one.client, nodes.Heartbeat())
        assert (await nodes.show(admin, "n1")).summary.availability == "drained"


def test_a_drained_node_stops_its_modules_and_starts_them_again(server: ServerProcess, node: NodeProcess) -> None:
    async def prepare() -> None:
        async with server.client() as admin:
            await nodes.allow(admin, "web1", "*")
            for name in ("first", "second"):
                (node.state / "modules.d" / f"{name}.yaml").write_text(UNIT)
                await until(admin, "web1", "open", running=1 if name == "first" else 2)

    async def uncordon() -> None:
        async with server.client() as admin:
            await nodes.act(admin, "web1", "uncordon")
            await until(admin, "web1", "open", running=2)

    asyncio.run(prepare())
    done = server.llmctl("node", "drain", "web1", "--timeout", "60s")
    assert (done.returncode, done.stderr) == (0, "web1 is being emptied\nweb1 is empty\n")
    events = [json.loads(line) for line in node.log().splitlines() if '"module is stopped"' in line]
    assert [event["module"] for event in events] == ["second", "first"], "the last started first"
    asyncio.run(uncordon())


def test_an_upgrade_that_failed_is_tried_again_when_it_is_wanted_again(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("server: {node_away_s: 3}\n")  # heard each second
    node = asyncio.run(NodeProcess(tmp_path, server, "web1").join())
    try:
        for _ in range(2):
            done = server.llmctl("node", "update", "web1", "--timeout", "60s")
            assert done.returncode == 1
            assert "not set up by install.sh" in done.stderr
    finally:
        node.stop()


@pytest.mark.anyio
async def test_labels_filters_and_columns(server, join):
    async with server.client() as admin, join(server, "n1"), join(server, "n2") as two:
        assert server.llmctl("node", "label", "n1", "env=prod", "edge=").returncode == 0
        assert server.llmctl("node", "label", "n1", "edge-").stderr == "env=prod\n"
        found = await nodes.listing(admin, filter="label.env=prod")
        assert [(node.name, node.labels) for node in found] == [("n1", {"env": "prod"})]
        with pytest.raises(InvalidInput, match="column 5"):
            await nodes.listing(admin, filter="mem>lots")
        await nodes.beat(two.client, nodes.Heartbeat())  # it must not be away however long that took
        shown = server.llmctl("nodes", "--filter", "cpus=2 and not label.env", "--columns", "name,labels,state")
        assert shown.stdout.split() == ["NODE", "LABELS", "STATE", "n2", "-", "ready"]
        assert "no column 'nmae'" in server.llmctl("nodes", "-c", "nmae").stderr
        assert server.llmctl("node", "cordon", "--filter", "label.env=prod").returncode == 0
        assert (await nodes.show(admin, "n1")).summary.availability == "cordoned"
        assert "n1, cordoned" not in server.llmctl("node", "show", "n1").stdout
        assert "Certificate" in server.llmctl("node", "show", "n1").stdout


@pytest.mark.anyio
async def test_the_console_shows_and_does_the_same(server, join):
    async with server.client() as admin, join(server, "n1"), join(server, "n2"):
        await nodes.label(admin, "n1", {"env": "prod"})
        client = HttpClient()
        headers = {"Authorization": f"Bearer {server.token}"}

        async def get(path: str, language: str = "en") -> str:
            done = await client.request("GET", server.url, path, headers=headers | {"Accept-Language": language})
            return done.body.decode()

        page = await get("/nodes?filter=label.env%3Dprod")
        assert "/nodes/n1" in page
        assert "/nodes/n2" not in page
        assert "column 1: there is no fact" in await get("/nodes?filter=nonsense")
        assert "停止派发" in await get("/nodes/n1", "zh-CN")
        for act, state in (("cordon", "cordoned"), ("uncordon", "open"), ("drain", "draining")):
            done = await client.request("POST", server.url, f"/nodes/n1/{act}", headers=headers, body=b"")
            assert done.status == 303
            assert (await nodes.show(admin, "n1")).summary.availability == state
        await client.request("POST", server.url, "/nodes/n2/remove", headers=headers, body=b"")
        assert [node.name for node in await nodes.listing(admin)] == ["n1"]
        await client.aclose()

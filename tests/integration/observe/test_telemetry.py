"""A node measures and logs, the server is away for a while, people and a Prometheus server ask."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmagentos.api import nodes, telemetry
from llmagentos.api.client import ApiClient
from llmagentos.api.telemetry import Batch, Line, LogEntry, Sample
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core.errors import Forbidden, InvalidInput, NotFound
from support.node import NodeProcess, join_request
from support.server import ServerProcess, StartServer

pytestmark = pytest.mark.anyio
CONFIG = json.dumps({"models": {}, "node": {"enabled": False}})


async def _until_lines(client: ApiClient, node: str, count: int) -> list[LogEntry]:
    async with asyncio.timeout(60):
        while len(found := await telemetry.lines(client, node, limit=1000)) < count:
            await asyncio.sleep(0.1)
    return found


async def test_what_a_node_measures_and_logs_survives_a_server_that_was_killed(
    start_server: StartServer, tmp_path: Path
) -> None:
    server: ServerProcess = await asyncio.to_thread(start_server, CONFIG)
    log = tmp_path / "app.log"
    log.write_text("long ago\n")
    node = NodeProcess(tmp_path, server, "web1")
    try:
        await node.join()
        wanted = f"every: 1\nprobes: {{jobs: {{command: echo 7, every: 1}}}}\nlogs: {{app: {{files: [{log}]}}}}\n"
        (node.state / "collect.d" / "app.yaml").write_text(wanted)
        async with server.client() as client:
            async with asyncio.timeout(60):
                while "probe_jobs" not in ((await telemetry.latest(client, "web1")) or Sample(0, {})).values:
                    await asyncio.sleep(0.1)
            with log.open("a") as file:
                file.write("one\n")
            assert [line.text for line in await _until_lines(client, "web1", 1)] == ["one"]
        await asyncio.to_thread(server.kill)
        with log.open("a") as file:
            file.write("two\nthree\n")
        while len(list((node.state / "telemetry").glob("*.batch"))) < 3:
            await asyncio.sleep(0.1)
        node.kill()  # and the node agent: what it collected is on its disk
        await asyncio.to_thread(server.start)
        node.start()
        async with server.client() as client:
            found = await _until_lines(client, "web1", 3)
            assert [(line.source, line.text) for line in found] == [("app", "one"), ("app", "two"), ("app", "three")]
            series = await telemetry.samples(
                client, "web1", match="node_cpu_seconds_total", since=time.time() - 600, points=2000
            )
            assert {each.rate for each in series} == {True}
            async with asyncio.timeout(60):  # its first sample may be older than the probe's first value
                while 'probe_jobs{instance="web1"} 7.0' not in (text := await client.text("/metrics/nodes")):
                    await asyncio.sleep(0.1)
        assert 'node_load1{instance="web1"} ' in text
        promtool = Path(sys.executable).parents[1] / "tools" / "promtool"
        if promtool.exists():
            lint = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
            assert [line for line in lint.stderr.splitlines() if "camelCase" not in line] == []
        shown = await asyncio.to_thread(server.llmctl, "node", "metrics", "web1", "*Mem*", "--since", "5m")
        assert "node_memory_MemAvailable_bytes" in shown.stdout, shown.stderr
        shown = await asyncio.to_thread(server.llmctl, "node", "logs", "web1", "--grep", "TWO")
        assert shown.stdout.split()[-2:] == ["app", "two"]
    finally:
        node.kill()


async def test_batches_come_once_and_only_from_the_node_itself(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, CONFIG)
    async with server.client() as admin:
        with pytest.raises(NotFound, match="no node 'nowhere'"):
            await telemetry.lines(admin, "nowhere")
        with pytest.raises(Forbidden):
            await telemetry.send(admin, Batch("s", 1))
    tokens = await _joined(server)
    async with server.client(tokens) as node, server.client() as admin:
        now = time.time()
        assert await telemetry.latest(admin, "n1") is None, "it has told nothing yet"
        batch = Batch(
            "spool", 1, [Sample(now - 30, {"x_total": 1.0}), Sample(now, {"x_total": 4.0})], [Line(now, "a", "hi")]
        )
        for _ in range(3):
            await telemetry.send(node, batch)
        assert [line.text for line in await telemetry.lines(admin, "n1")] == ["hi"]
        following = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llmagentos.cli.main"),
            *("node", "logs", "n1", "--follow", "--json"),
            env=server.env,
            stdout=subprocess.PIPE,
        )
        assert following.stdout is not None
        async with asyncio.timeout(60):
            assert json.loads(await following.stdout.readline())["text"] == "hi"
        following.terminate()
        await following.communicate()
        (series,) = await telemetry.samples(admin, "n1", since=now - 60, points=100)
        assert (series.name, series.rate, [point.value for point in series.points]) == ("x_total", True, [0.1])
        with pytest.raises(InvalidInput, match="is not a series"):
            await telemetry.send(node, Batch("spool", 2, [Sample(now, {"bad name": 1.0})]))
        with pytest.raises(InvalidInput, match="is not a series"):
            await telemetry.send(node, Batch("spool", 2, [Sample(now, {'a{instance="other"}': 1.0})]))
        odd = [Sample(-1e300, {"g": 1.0}), Sample(1e300, {"g": 2.0})]
        await telemetry.send(node, Batch("spool", 2, odd, [Line(1e300, "a", "later")]))
        assert all(line.at < now + 60 for line in await telemetry.lines(admin, "n1"))
        with pytest.raises(Forbidden):
            await telemetry.lines(node, "n1")


async def test_lines_are_followed_as_they_come(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, CONFIG)
    token = await _joined(server)
    async with server.client(token) as node, server.client() as admin, telemetry.follow(admin, "n1", text="b") as items:
        for number, text in enumerate(["abc", "xyz", "B!"], 1):
            await telemetry.send(node, Batch("s", number, [], [Line(time.time(), "app", text)]))
        assert [(await anext(items)).text for _ in range(2)] == ["abc", "B!"]


async def _joined(server: ServerProcess) -> str:
    """The token of a new node n1."""
    async with server.client() as admin:
        made = await admin.post("/api/v1/tokens", TokenRequest("join", "n1"), NewToken)
    async with server.client(made.token) as joining:
        return (await nodes.join(joining, join_request("n1"))).token

"""CPU, memory, disk, a probe and a log: stored, and there when they are asked for."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio

SERIES = re.compile(r"\b(?:node|probe)_\w+")
BY_NODES_THEMSELVES = {"node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_filesystem_avail_bytes"}


async def test_what_nodes_measure_is_stored_and_found(nodeless, start_nodes, example, tmp_path):
    await start_nodes("web1")
    rules = (example("monitoring") / "rules.yml").read_text()
    spool, log = tmp_path / "new orders", tmp_path / "orders.log"
    spool.mkdir()
    (spool / "1").touch()
    (spool / "2").touch()
    log.touch()

    async def llmctl(*arguments):
        return await asyncio.to_thread(nodeless.llmctl, *arguments)

    paths = json.dumps({"watched_dir": str(spool), "watched_log": str(log), "every": 1})
    done = await llmctl("run", "monitoring/deploy.yml", "-e", paths)
    assert done.returncode == 0, done.stdout + done.stderr

    wanted = set(SERIES.findall(rules))
    assert wanted >= BY_NODES_THEMSELVES
    found = {}

    async def values():
        found.clear()
        found.update(latest(await nodes_metrics(nodeless)))
        return wanted <= {name.partition("{")[0] for name in found}

    await until(values)
    assert found['probe_success{instance="web1",probe="orders_waiting"}'] == 1.0
    assert found['probe_orders_waiting{instance="web1"}'] == 2.0

    with log.open("a") as file:
        file.write("order 3 is lost\n")
    lines = []

    async def logged():
        lines[:] = (await llmctl("node", "logs", "web1", "--grep", "LOST")).stdout.splitlines()
        return lines

    await until(logged)
    assert lines[-1].split()[-5:] == ["orders", "order", "3", "is", "lost"]

    for pattern in ("node_cpu*", "*Mem*", "*filesystem*", "probe_orders_waiting"):

        async def points(pattern=pattern):
            shown = json.loads((await llmctl("node", "metrics", "web1", pattern, "--since", "5m", "--json")).stdout)
            return shown and shown[0]["points"]

        await until(points)  # of counters there are some once there are two readings


async def nodes_metrics(server):
    async with server.client() as client:
        return await client.text("/metrics/nodes")


def latest(text):
    """Prometheus' text format: series and value."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def until(condition):
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.1)


async def test_the_rules_are_prometheus_rules(promtool):
    rules = Path(__file__).parents[3] / "examples" / "monitoring" / "rules.yml"
    done = await asyncio.to_thread(subprocess.run, [promtool, "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout

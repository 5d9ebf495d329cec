"""Nodes and jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from llmagentos.api.nodes import NodeState
from llmagentos.core import log, metrics
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.nodes import Nodes
from llmagentos.server.routes import nodes as node_routes
from llmagentos.server.wiring import jobs as job_wiring
from llmagentos.server.wiring import nodes as node_wiring
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.server.wiring.jobs import Work

WATCH_S = 2.0

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What others (the console) may use."""

    jobs: Jobs
    nodes: Nodes
    work: Work


def wire(base: Foundation, parts: Parts) -> Fleet:
    machines = node_wiring.wire(base, parts, lambda: jobs)
    nodes = machines.nodes
    work = job_wiring.wire(base, parts, machines)
    jobs = work.jobs

    async def watch() -> None:
        """Announces nodes that go away and feeds the gauges."""
        known: dict[str, NodeState] = {}
        while True:
            try:
                known = await nodes.look(known)
                metrics.JOBS_WAITING.set(sum((await jobs.queue_lengths()).values()))
            except Exception as error:  # a supervising loop: a database that is away for a while must not end it
                _log.warning("looking after nodes failed", error=str(error))
            await asyncio.sleep(WATCH_S)

    parts.endpoints += node_routes.endpoints(
        nodes, machines.enrolment, queue_lengths=jobs.queue_lengths, drop_queue=jobs.drop_node
    )
    parts.background.append(watch)
    return Fleet(jobs, nodes, work)

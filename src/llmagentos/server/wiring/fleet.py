"""Nodes and jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from llmagentos.api.nodes import NodeState
from llmagentos.core import log, metrics
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.nodes import Nodes, Presence
from llmagentos.server.routes import jobs as job_routes
from llmagentos.server.routes import nodes as node_routes
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.jobs import JobRecords
from llmagentos.storage.nodes import NodeRecords

WATCH_S = 2.0

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What others (the console) may use."""

    jobs: Jobs
    nodes: Nodes


def wire(base: Foundation, parts: Parts) -> Fleet:
    presence = Presence(base.clock)
    nodes = Nodes(
        NodeRecords(base.database, base.clock),
        base.token_records,
        presence,
        base.hub,
        base.clock,
        forget_tokens=base.authenticator.forget,
    )
    jobs = Jobs(
        JobRecords(base.database, base.clock),
        Blobs(base.state.root / "blobs"),
        base.hub,
        base.clock,
        nodes=nodes.names,
        away=presence.away,
    )

    async def prune() -> None:
        await jobs.prune(base.config.retention.jobs_days)

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

    limits = base.config.server.limits
    parts.endpoints += job_routes.endpoints(jobs, base.hub, bundle_bytes=limits.bundle_bytes)
    parts.endpoints += node_routes.endpoints(nodes, queue_lengths=jobs.queue_lengths, drop_queue=jobs.drop_node)
    parts.start += [nodes.start, jobs.start]
    parts.background.append(watch)
    parts.prune.append(prune)
    return Fleet(jobs, nodes)

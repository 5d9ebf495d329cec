"""Nodes and their identities, without what they work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from llmagentos.api.jobs import Job, JobSummary
from llmagentos.fleet.enrolment import Enrolment
from llmagentos.fleet.jobs import Jobs
from llmagentos.fleet.nodes import Nodes
from llmagentos.fleet.placed import Placed
from llmagentos.fleet.presence import Presence
from llmagentos.fleet.upgrades import Upgrades
from llmagentos.server.routes import install, packages
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.certificates import CertificateRecords
from llmagentos.storage.nodes import NodeRecords


@dataclass(frozen=True, slots=True)
class Machines:
    """What the fleet is wired from."""

    nodes: Nodes
    enrolment: Enrolment
    presence: Presence
    upgrades: Upgrades


def wire(base: Foundation, parts: Parts, jobs: Callable[[], Jobs]) -> Machines:
    """`jobs` are made afterwards: they need the nodes' names."""
    presence = Presence(base.clock, base.config.server.node_away_s)
    records = NodeRecords(base.database, base.clock)

    async def listing(*, limit: int, node: str | None = None) -> list[JobSummary]:
        return await jobs().listing(limit=limit, node=node)

    async def show(job: int) -> Job:
        return await jobs().show(job)

    async def content(digest: str) -> bytes | None:
        return await jobs().bundle_content(digest)

    async def busy(node: str) -> bool:
        return await jobs().works(node)

    enrolment = Enrolment(
        records,
        CertificateRecords(base.database, base.clock),
        base.token_records,
        base.node_ca,
        presence,
        base.hub,
        base.clock,
        days=base.config.server.node_certificate_days,
        forget_tokens=base.authenticator.forget,
        placed=Placed(listing, show, content).by,
    )
    base.authenticator.accept(enrolment.identify)
    nodes = Nodes(records, enrolment, presence, base.hub, base.clock, busy=busy)
    upgrades = Upgrades(records, Blobs(base.state.root / "wheels"), base.hub, base.clock)
    parts.endpoints += packages.endpoints(upgrades, _launcher)
    parts.pages.append(install.route())
    parts.start.append(nodes.start)
    parts.prune += [enrolment.prune, upgrades.prune]
    return Machines(nodes, enrolment, presence, upgrades)


def _launcher() -> bytes:
    return resources.files("llmagentos.fleet.node").joinpath(packages.LAUNCHER).read_bytes()

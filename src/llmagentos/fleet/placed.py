"""Which modules were put on a node by playbooks: what a node may have tokens for without a person's further word.

Whoever may run jobs has said by running a playbook that its modules shall run on its nodes. Only what stands in the
playbook's directory counts, only jobs that the node was given (none that waits, none in check mode), and never what
the node says of itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from llmagentos.api.jobs import Job, JobSummary
from llmagentos.fleet.playbooks import bundle
from llmagentos.fleet.playbooks.units import units

JOBS = 100
"""Newest jobs of a node that are looked at."""
REMEMBERED = 256


class Listing(Protocol):
    """Jobs of a node, newest first."""

    async def __call__(self, *, limit: int, node: str | None = None) -> list[JobSummary]: ...


class Placed:
    """Looks into the playbooks that a node was given; what a bundle holds is remembered."""

    def __init__(
        self,
        listing: Listing,
        show: Callable[[int], Awaitable[Job]],
        content: Callable[[str], Awaitable[bytes | None]],
    ) -> None:
        self._listing = listing
        self._show = show
        self._content = content
        self._units: OrderedDict[str, list[str]] = OrderedDict()

    async def by(self, node: str, module: str) -> str | None:
        """The job that put `module` on `node`, and whose it is; None for none."""
        for summary in await self._listing(limit=JOBS, node=node):
            if "check" in summary.modes:
                continue
            job = await self._show(summary.id)
            given = any(host.node == node and host.started is not None for host in job.hosts)
            if given and module in await self._of(job.spec.bundle):
                return f"job {summary.id} of {summary.created_by}"
        return None

    async def _of(self, digest: str) -> list[str]:
        if digest not in self._units:
            content = await self._content(digest)
            self._units[digest] = await asyncio.to_thread(_units, content) if content is not None else []
            if len(self._units) > REMEMBERED:
                self._units.popitem(last=False)
        return self._units[digest]


def _units(content: bytes) -> list[str]:
    return units(bundle.read(content))

"""Versions of the node agent that nodes shall become: kept wheels, what each node shall be, how it went."""

from __future__ import annotations

import asyncio
import hashlib

from llmagentos.api.nodes import Upgrade, UpgradeReport
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Forbidden, InvalidInput, NotFound
from llmagentos.core.events import Hub
from llmagentos.fleet import package
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.nodes import NodeRecords

_log = log.get(__name__)


class Upgrades:
    """`wheels` keeps their content."""

    def __init__(self, records: NodeRecords, wheels: Blobs, hub: Hub, clock: Clock) -> None:
        self._records = records
        self._wheels = wheels
        self._hub = hub
        self._clock = clock
        self._own: package.Wheel | None = None
        self._building = asyncio.Lock()

    async def own(self) -> package.Wheel:
        """The package that runs here, as a wheel."""
        async with self._building:
            if self._own is None:
                self._own = await asyncio.to_thread(package.build)
            return self._own

    async def keep(self, digest: str, content: bytes) -> package.Wheel:
        """Store a wheel. Raises `InvalidInput` for what is none of this package."""
        if hashlib.sha256(content).hexdigest() != digest:
            raise InvalidInput(f"the content's SHA-256 is not {digest[:80]!r}")
        wheel = await asyncio.to_thread(package.read, content)
        await self._wheels.put(digest, content)
        return wheel

    async def want(self, name: str, digest: str | None) -> Upgrade:
        """Have a node become a stored version, or the server's own. Raises `NotFound`."""
        own = await self.own()
        if digest is None or digest == own.digest:
            await self._wheels.put(own.digest, own.content)
            wheel = own
        else:
            content = await self._wheels.get(digest)
            if content is None:
                raise NotFound(f"there is no wheel {digest[:80]!r}", hint=f"PUT /api/v1/wheels/{digest[:80]}")
            wheel = await asyncio.to_thread(package.read, content)
        upgrade = Upgrade(wheel.version, wheel.digest, at=self._clock.time())
        if not await self._records.set_upgrade(name, upgrade):
            raise NotFound(f"there is no node {name!r}", hint="`llmctl nodes` lists them")
        self._hub.publish("nodes", name)
        _log.info("node upgrade wanted", node=name, version=wheel.version, digest=wheel.digest)
        return upgrade

    async def wheel_for(self, node: str, digest: str) -> bytes:
        """The wheel that the node shall become. Raises `Forbidden` for another one."""
        record = await self._records.find(node)
        wanted = record.upgrade if record is not None else None
        content = await self._wheels.get(digest) if wanted is not None and wanted.digest == digest else None
        if content is None:
            raise Forbidden(f"node {node!r} shall not become the wheel {digest[:80]!r}")
        return content

    async def report(self, node: str, report: UpgradeReport) -> None:
        """How it went; of an upgrade that is no longer wanted nothing is kept."""
        record = await self._records.find(node)
        wanted = record.upgrade if record is not None else None
        if wanted is None or wanted.digest != report.digest:
            return
        ended = Upgrade(wanted.version, wanted.digest, report.state, report.message, self._clock.time())
        if not await self._records.end_upgrade(node, ended, was=wanted):
            return
        self._hub.publish("nodes", node)
        _log.info("node upgrade ended", node=node, version=wanted.version, state=report.state, message=report.message)

    async def prune(self) -> None:
        """Delete wheels that no node shall become."""
        records = await self._records.all()
        await self._wheels.prune({record.upgrade.digest for record in records if record.upgrade is not None})

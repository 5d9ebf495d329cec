"""Nodes: whether they are there, what they are, and whether they take jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from llmagentos.api.nodes import (
    Availability,
    Beat,
    CertificateInfo,
    Facts,
    Heartbeat,
    Labels,
    Node,
    NodeState,
    NodeSummary,
)
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import InvalidInput, NotFound, nearest
from llmagentos.core.events import Hub
from llmagentos.fleet import filters
from llmagentos.fleet.availability import Change, step
from llmagentos.fleet.enrolment import Enrolment, removed
from llmagentos.fleet.playbooks.machines import Machines
from llmagentos.fleet.presence import Presence
from llmagentos.storage.gathering import Gathered
from llmagentos.storage.nodes import NodeRecord, NodeRecords

MAX_LABELS = 64
SOON_S = 2.0
"""How often a node speaks of which people want something just now."""
_CLOSED = frozenset({"draining", "drained"})
_STOPPED = frozenset({"stopped", "failed"})

_log = log.get(__name__)


class Nodes:
    """All nodes. `busy` says whether one works on a job."""

    def __init__(
        self,
        records: NodeRecords,
        enrolment: Enrolment,
        presence: Presence,
        hub: Hub,
        clock: Clock,
        *,
        busy: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._records = records
        self._enrolment = enrolment
        self._presence = presence
        self._hub = hub
        self._clock = clock
        self._busy = busy
        self._beat = Gathered(records.beats)

    async def start(self) -> None:
        """Take up what storage remembers of who was there."""
        for record in await self._records.all():
            self._presence.restore(record.name, record.seen)

    async def set_facts(self, name: str, facts: Facts) -> None:
        """Replace a node's facts."""
        if not await self._records.set_facts(name, facts):
            raise removed(name)
        self._hub.publish("nodes", name)

    async def beat(self, name: str, heartbeat: Heartbeat) -> Beat:
        """A sign of life."""
        record = await self._beat((name, heartbeat))
        if record is None:
            raise removed(name)
        back = self._presence.away(name)
        self._presence.heard(name, record.seen)
        if back:
            _log.info("node is back", node=name)
        if record.availability == "draining" and await self._is_empty(record):
            await self._change(record, "emptied")
        self._hub.publish("nodes", name)
        upgrade = record.upgrade if record.upgrade is not None and record.upgrade.state == "wanted" else None
        interval = self._presence.away_s / 3
        if record.availability != "open" or upgrade is not None:
            interval = min(interval, SOON_S)
        return Beat(interval, self._clock.time(), record.availability in _CLOSED, upgrade)

    async def _is_empty(self, record: NodeRecord) -> bool:
        stopped = all(module.state in _STOPPED for module in record.heartbeat.modules)
        return stopped and not await self._busy(record.name)

    # --- people -------------------------------------------------------------------------------

    async def names(self) -> list[str]:
        """Every node's name."""
        return await self._records.names()

    async def listing(self, queues: Mapping[str, int], expression: str | None = None) -> list[NodeSummary]:
        """All nodes by name, or those that `expression` matches; `queues` are the lengths of their queues.

        Raises `FilterError` with the column.
        """
        chosen = filters.parse(expression) if expression else None
        found = []
        for record in await self._records.all():
            summary = self._summary(record, queues.get(record.name, 0))
            if chosen is None or chosen(filters.values(summary, record.facts, record.heartbeat)):
                found.append(summary)
        return found

    async def known(self) -> Machines:
        """Every node as an inventory without `-i` has them."""
        records = await self._records.all()

        def matching(expression: str) -> set[str]:
            chosen = filters.parse(expression)
            seen = ((record, self._summary(record, 0)) for record in records)
            return {
                record.name
                for record, summary in seen
                if chosen(filters.values(summary, record.facts, record.heartbeat))
            }

        return Machines({record.name: filters.groups(record.facts, record.labels) for record in records}, matching)

    async def show(self, name: str, queues: Mapping[str, int]) -> Node:
        """One node. Raises `NotFound` with the nearest name."""
        record = await self._find(name)
        newest = await self._enrolment.newest(name)
        info = None
        if newest is not None:
            mine = newest.certificate
            info = CertificateInfo(mine.serial, mine.thumbprint, mine.issued, mine.expires, newest.revoked)
        return Node(
            self._summary(record, queues.get(name, 0)),
            record.facts,
            record.heartbeat,
            await self._records.modules(name),
            round(record.clock_offset, 3),
            info,
            await self._enrolment.grants(name),
            record.upgrade,
        )

    async def _find(self, name: str) -> NodeRecord:
        record = await self._records.find(name)
        if record is None:
            close = nearest(name, await self._records.names())
            hint = f"did you mean {close!r}?" if close else "`llmctl nodes` lists them"
            raise NotFound(f"there is no node {name!r}", hint=hint)
        return record

    async def require(self, name: str) -> None:
        """Raises `NotFound` with the nearest name unless there is such a node."""
        await self._find(name)

    async def set_labels(self, name: str, labels: Labels, queues: Mapping[str, int]) -> NodeSummary:
        """Set and take away labels."""

        def change(known: dict[str, str]) -> dict[str, str]:
            merged: dict[str, str | None] = {**known, **labels.set}
            kept = {key: value for key, value in sorted(merged.items()) if value is not None}
            if len(kept) > MAX_LABELS:
                raise InvalidInput(f"{len(kept)} labels are too many for a node: at most {MAX_LABELS}")
            return kept

        await self._records.set_labels(name, change)
        self._hub.publish("nodes", name)
        return self._summary(await self._find(name), queues.get(name, 0))

    async def change(self, name: str, change: Change, queues: Mapping[str, int]) -> NodeSummary:
        """Cordon, drain or uncordon a node."""
        while not await self._change(await self._find(name), change):
            continue  # somebody changed it meanwhile
        return self._summary(await self._find(name), queues.get(name, 0))

    async def _change(self, record: NodeRecord, change: Change) -> bool:
        """Whether it is done: not when its availability is another one than the record says."""
        after = step(record.availability, change)
        if after == record.availability:
            return True
        if not await self._records.set_availability(record.name, after, was=record.availability):
            return False
        _log.info("node's availability", node=record.name, before=record.availability, now=after)
        self._hub.publish("nodes", record.name)
        if after == "open":
            self._hub.publish(f"queue:{record.name}", 0)  # what waited for it
        return True

    async def missing(self, names: Collection[str]) -> set[str]:
        """Those of `names` that no node has."""
        return await self._records.missing(names)

    async def not_open(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that get no new jobs."""
        return await self._records.not_open(names)

    async def closed(self) -> dict[str, Availability]:
        """The nodes that get no new jobs, and how they are."""
        return {
            record.name: record.availability for record in await self._records.all() if record.availability != "open"
        }

    async def revoke(self, name: str, queues: Mapping[str, int]) -> NodeSummary:
        """End a node's identity; its record stays, and its jobs wait."""
        await self._find(name)
        await self._enrolment.revoke(name)
        return self._summary(await self._find(name), queues.get(name, 0))

    async def remove(self, name: str) -> None:
        """Take a node out: it, and the modules on it, lose their tokens. Raises `NotFound`."""
        await self._find(name)
        await self._records.remove(name)
        await self._enrolment.forget(name)
        self._presence.forget(name)
        self._hub.publish("nodes", name)
        _log.info("node removed", node=name)

    def _summary(self, record: NodeRecord, queue: int) -> NodeSummary:
        return NodeSummary(
            name=record.name,
            state=self._state(record.name, record.revoked is not None),
            joined=record.joined,
            seen=record.seen,
            os=record.facts.os,
            cpus=record.facts.cpus,
            memory_bytes=record.facts.memory_bytes,
            load=record.heartbeat.load,
            queue=queue,
            modules=record.heartbeat.modules,
            version=record.facts.version,
            availability=record.availability,
            labels=record.labels,
            groups=filters.groups(record.facts, record.labels),
            trouble=record.trouble,
            gpus=len(record.facts.gpus),
        )

    def _state(self, name: str, revoked: bool) -> NodeState:
        return "revoked" if revoked else self._presence.state(name)

    async def look(self, known: dict[str, NodeState]) -> dict[str, NodeState]:
        """Who is there now; those that were `ready` in `known` and went away are announced."""
        seen = await self._records.seen()
        self._presence.look(seen)
        now = {name: self._presence.state(name) for name in seen}
        for name, state in now.items():
            if state == "away" and known.get(name) == "ready":
                _log.warning("node is away", node=name, after_s=self._presence.away_s)
                self._hub.publish("nodes", name)
        for each in ("ready", "away"):
            metrics.NODES.labels(each).set(sum(state == each for state in now.values()))
        return now

"""Nodes: how machines join, whether they are there, and what their modules may identify themselves with."""

from __future__ import annotations

from collections.abc import Callable

from llmagentos.api.nodes import (
    AWAY_S,
    HEARTBEAT_S,
    Beat,
    Facts,
    Heartbeat,
    Join,
    Joined,
    Node,
    NodeState,
    NodeSummary,
)
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated, nearest
from llmagentos.core.events import Hub
from llmagentos.security.identity import Identity, Kind
from llmagentos.storage.nodes import NodeRecord, NodeRecords
from llmagentos.storage.tokens import TokenRecords

RESERVED = frozenset({"self", "join", "all", "ungrouped", "localhost"})
MAX_MODULES = 256
"""Modules of one node that may have tokens."""
TOKENS_PER_MODULE = 2
"""The newest tokens of a module on one node that stay good: the running one's and its successor's."""

_log = log.get(__name__)


class Presence:
    """Which nodes are there: decided on the monotonic clock, so that a wall clock that jumps makes none `away`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin = clock.monotonic()
        self._begin_wall = clock.time()
        self._heard: dict[str, float] = {}

    def heard(self, name: str) -> None:
        """The node gave a sign of life now."""
        self._heard[name] = self._clock.monotonic()

    def restore(self, name: str, seen: float) -> None:
        """What storage remembers: a node that was there when the server stopped gets a full term to come back."""
        if self._begin_wall - seen < AWAY_S:
            self._heard.setdefault(name, self._begin)

    def forget(self, name: str) -> None:
        """The node was removed."""
        self._heard.pop(name, None)

    def away(self, name: str) -> bool:
        """Whether the node was silent for too long."""
        heard = self._heard.get(name)
        return heard is None or self._clock.monotonic() - heard >= AWAY_S

    def state(self, name: str) -> NodeState:
        """`ready` or `away`."""
        return "away" if self.away(name) else "ready"


class Nodes:
    """All nodes. `forget_tokens` makes revoked tokens useless at once."""

    def __init__(
        self,
        records: NodeRecords,
        tokens: TokenRecords,
        presence: Presence,
        hub: Hub,
        clock: Clock,
        *,
        forget_tokens: Callable[[], None],
    ) -> None:
        self._records = records
        self._tokens = tokens
        self._presence = presence
        self._hub = hub
        self._clock = clock
        self._forget_tokens = forget_tokens

    async def start(self) -> None:
        """Take up what storage remembers of who was there."""
        for record in await self._records.all():
            self._presence.restore(record.name, record.seen)

    async def join(self, identity: Identity, request: Join) -> Joined:
        """A machine becomes a node. Raises `Conflict` when the name is taken; a join token is then still good."""
        if request.name in RESERVED:
            raise InvalidInput(f"a node cannot be called {request.name!r}: the API and inventories use that word")
        known = await self._records.find(request.name)
        if known is not None and known.seen != known.joined:
            raise Conflict(
                f"there is a node {request.name!r} already",
                hint=f"join under another name, or `llmctl node remove {request.name}` first",
            )
        if identity.kind is Kind.JOIN and not await self._tokens.consume(str(identity.token_id)):
            raise Unauthenticated("this join token was used already", hint="`llmctl token create` makes another")
        if known is not None:  # it joined, but the answer never arrived: nothing was ever heard from it
            await self._tokens.revoke_subject(Kind.NODE, request.name)
            self._forget_tokens()
            await self._records.remove(request.name)
        if not await self._records.add(request.name, Facts(hostname=request.hostname, version=request.version)):
            raise Conflict(f"another machine just joined as {request.name!r}", hint="join under another name")
        token, _ = await self._tokens.create(Kind.NODE, request.name, by=str(identity))
        self._presence.heard(request.name)
        self._hub.publish("nodes", request.name)
        _log.info("node joined", node=request.name, hostname=request.hostname)
        return Joined(request.name, token)

    async def set_facts(self, name: str, facts: Facts) -> None:
        """Replace a node's facts."""
        if not await self._records.set_facts(name, facts):
            raise _removed(name)
        self._hub.publish("nodes", name)

    async def beat(self, name: str, heartbeat: Heartbeat) -> Beat:
        """A sign of life."""
        if not await self._records.beat(name, heartbeat):
            raise _removed(name)
        back = self._presence.away(name)
        self._presence.heard(name)
        if back:
            _log.info("node is back", node=name)
        self._hub.publish("nodes", name)
        return Beat(HEARTBEAT_S, self._clock.time())

    async def names(self) -> list[str]:
        """Every node's name."""
        return await self._records.names()

    async def listing(self, queues: dict[str, int]) -> list[NodeSummary]:
        """All nodes by name; `queues` are the lengths of their queues."""
        return [self._summary(record, queues.get(record.name, 0)) for record in await self._records.all()]

    async def show(self, name: str, queues: dict[str, int]) -> Node:
        """One node. Raises `NotFound` with the nearest name."""
        record = await self._records.find(name)
        if record is None:
            raise await self._unknown(name)
        return Node(
            self._summary(record, queues.get(name, 0)),
            record.facts,
            record.heartbeat,
            await self._records.modules(name),
            round(record.clock_offset, 3),
        )

    async def _unknown(self, name: str) -> NotFound:
        close = nearest(name, await self._records.names())
        return NotFound(
            f"there is no node {name!r}", hint=f"did you mean {close!r}?" if close else "`llmctl nodes` lists them"
        )

    async def remove(self, name: str) -> None:
        """Take a node out: it, and the modules on it, lose their tokens. Raises `NotFound`."""
        if not await self._records.remove(name):
            raise await self._unknown(name)
        await self._tokens.revoke_subject(Kind.NODE, name)
        await self._tokens.revoke_made_by(_by(name))
        self._forget_tokens()
        self._presence.forget(name)
        self._hub.publish("nodes", name)
        _log.info("node removed", node=name)

    async def module_token(self, node: str, module: str) -> str:
        """A token of kind module for a unit on `node`; older ones of the same unit end."""
        if not await self._records.grant_module(node, module, most=MAX_MODULES):
            raise Conflict(f"node {node!r} has tokens for {MAX_MODULES} modules: no more", limit=MAX_MODULES)
        token, _ = await self._tokens.create(Kind.MODULE, module, by=_by(node))
        await self._tokens.revoke_made_by(_by(node), subject=module, keep=TOKENS_PER_MODULE)
        self._forget_tokens()
        return token

    def _summary(self, record: NodeRecord, queue: int) -> NodeSummary:
        return NodeSummary(
            name=record.name,
            state=self._presence.state(record.name),
            joined=record.joined,
            seen=record.seen,
            os=record.facts.os,
            cpus=record.facts.cpus,
            memory_bytes=record.facts.memory_bytes,
            load=record.heartbeat.load,
            queue=queue,
            modules=record.heartbeat.modules,
            version=record.facts.version,
        )

    async def look(self, known: dict[str, NodeState]) -> dict[str, NodeState]:
        """Who is there now; those that were `ready` in `known` and went away are announced."""
        now = {name: self._presence.state(name) for name in await self._records.names()}
        for name, state in now.items():
            if state == "away" and known.get(name) == "ready":
                _log.warning("node is away", node=name, after_s=AWAY_S)
                self._hub.publish("nodes", name)
        for each in ("ready", "away"):
            metrics.NODES.labels(each).set(sum(state == each for state in now.values()))
        return now


def _removed(name: str) -> Unauthenticated:
    return Unauthenticated(f"node {name!r} was removed", hint="`llmctl node join` again with a new join token")


def _by(node: str) -> str:
    return f"node:{node}"

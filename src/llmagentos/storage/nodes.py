"""Nodes: who joined, what they are, when they were last heard, which modules they may have tokens for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    String,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Row

from llmagentos.api.nodes import Availability, Facts, Grant, Heartbeat, Trouble, Upgrade
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.gathering import Gathered

NODES = Table(
    "nodes",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("joined", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("facts", Text, nullable=False),  # api.nodes.Facts as JSON
    Column("heartbeat", Text, nullable=False),  # api.nodes.Heartbeat as JSON
    Column("clock_offset", Float, nullable=False),
    Column("availability", String(16), nullable=False),
    Column("labels", Text, nullable=False),  # JSON: text by name
    Column("place", String(64), nullable=False),  # a digest of the machine and its start, from where it last spoke
    Column("counter", BigInteger, nullable=False),  # of its last assertion
    Column("revoked", Float),
    Column("trouble", Text),  # api.nodes.Trouble as JSON
    Column("upgrade", Text),  # api.nodes.Upgrade as JSON
)

NODE_MODULES = Table(
    "node_modules",
    METADATA,
    Column("node", String(64), primary_key=True),
    Column("module", String(128), primary_key=True),
    Column("granted", Float, nullable=False),
)

NODE_GRANTS = Table(
    "node_grants",
    METADATA,
    Column("node", String(64), primary_key=True),
    Column("pattern", String(128), primary_key=True),  # a module's name, with * and ?
    Column("at", Float, nullable=False),
    Column("by", String(300), nullable=False),
)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as stored. Times are seconds since the epoch."""

    name: str
    joined: float
    seen: float
    facts: Facts
    heartbeat: Heartbeat
    clock_offset: float
    availability: Availability
    labels: dict[str, str]
    place: str
    counter: int
    revoked: float | None
    trouble: Trouble | None
    upgrade: Upgrade | None


class NodeRecords:
    """Queries over the nodes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert
        self._added = Gathered(self._add)
        self._found = Gathered(self._find)
        self._described = Gathered(self._set_facts)

    async def add(self, name: str, facts: Facts, *, place: str, labels: dict[str, str]) -> float | None:
        """A new node that runs at `place`; when it joined, or None when there is one of this name."""
        return await self._added({"name": name, "facts": _json(facts), "labels": _json(labels), "place": place})

    async def _add(self, rows: Sequence[dict[str, Any]]) -> list[float | None]:
        now = self._clock.time()
        first = {row["name"]: row for row in reversed(rows)}
        common = {"joined": now, "seen": now, "heartbeat": "{}", "clock_offset": 0.0, "availability": "open"}
        new = [row | common | {"counter": 0} for row in first.values()]
        async with self._database.write() as connection:
            insert = self._insert(NODES).on_conflict_do_nothing().returning(NODES.c.name)
            made = {row.name for row in await connection.execute(insert, new)}
        return [now if row["name"] in made and first[row["name"]] is row else None for row in rows]

    async def set_facts(self, name: str, facts: Facts) -> bool:
        """Replace a node's facts; whether there is such a node."""
        return await self._described((name, facts))

    async def _set_facts(self, told: Sequence[tuple[str, Facts]]) -> list[bool]:
        async with self._database.write() as connection:
            query = select(NODES.c.name).where(NODES.c.name.in_({name for name, _ in told})).order_by(NODES.c.name)
            known = {row.name for row in await connection.execute(query.with_for_update())}
            new = [{"of": name, "told": _json(facts)} for name, facts in told if name in known]
            if new:
                changed = update(NODES).where(NODES.c.name == bindparam("of")).values(facts=bindparam("told"))
                await connection.execute(changed, new)
        return [name in known for name, _ in told]

    async def beats(self, beats: Sequence[tuple[str, Heartbeat]]) -> list[NodeRecord | None]:
        """Keep signs of life; each node as it is then, None where there is no such node."""
        now = self._clock.time()
        async with self._database.write() as connection:
            query = select(NODES).where(NODES.c.name.in_({name for name, _ in beats})).order_by(NODES.c.name)
            rows = await connection.execute(query.with_for_update())
            found = {row.name: _record(row) for row in rows}
            for name, heartbeat in beats:
                if name in found:
                    offset = heartbeat.time - now if heartbeat.time else 0.0
                    found[name] = replace(found[name], seen=now, heartbeat=heartbeat, clock_offset=offset)
            if found:
                seen = update(NODES).where(NODES.c.name == bindparam("of")).values(seen=now)
                seen = seen.values(heartbeat=bindparam("said"), clock_offset=bindparam("offset"))
                said = [
                    {"of": name, "said": _json(record.heartbeat), "offset": record.clock_offset}
                    for name, record in found.items()
                ]
                await connection.execute(seen, said)
        return [found.get(name) for name, _ in beats]

    async def not_open(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that take no new jobs: as somebody wants it, or because they are revoked."""
        closed = (NODES.c.availability != "open") | NODES.c.revoked.is_not(None)
        query = select(NODES.c.name).where(NODES.c.name.in_(names), closed)
        async with self._database.read() as connection:
            return {row.name for row in await connection.execute(query)}

    async def rejoin(self, name: str, facts: Facts, *, place: str) -> float | None:
        """A node that was revoked joined again, when: its labels, jobs and grants stay. None when it did already."""
        now = self._clock.time()
        content = msgspec.json.encode(facts).decode()
        values = {"joined": now, "seen": now, "facts": content, "place": place, "counter": 0}
        revoked = (NODES.c.name == name) & NODES.c.revoked.is_not(None)
        async with self._database.write() as connection:
            done = await connection.execute(update(NODES).where(revoked).values(**values, revoked=None, trouble=None))
        return now if done.rowcount == 1 else None

    async def set_labels(self, name: str, change: Callable[[dict[str, str]], dict[str, str]]) -> bool:
        """Make of a node's labels what `change` makes of them, also where several do so at once.

        Raises what it raises; whether there is such a node.
        """
        async with self._database.write() as connection:
            query = select(NODES.c.labels).where(NODES.c.name == name).with_for_update()
            kept = (await connection.execute(query)).scalar_one_or_none()
            if kept is None:
                return False
            labels = _json(change(msgspec.json.decode(kept, type=dict[str, str])))
            await connection.execute(update(NODES).where(NODES.c.name == name).values(labels=labels))
        return True

    async def set_availability(self, name: str, availability: Availability, *, was: Availability) -> bool:
        """Keep whether it takes jobs; False when that was not as it `was`, or there is no such node."""
        return await self._update(name, NODES.c.availability == was, availability=availability)

    async def set_trouble(self, name: str, trouble: Trouble | None) -> bool:
        """Keep what is wrong with its identity; whether there is such a node."""
        return await self._update(name, trouble=_json(trouble))

    async def set_upgrade(self, name: str, upgrade: Upgrade) -> bool:
        """Keep which version its node agent shall be; whether there is such a node."""
        return await self._update(name, upgrade=_json(upgrade))

    async def end_upgrade(self, name: str, upgrade: Upgrade, *, was: Upgrade) -> bool:
        """Keep how that went; False when something else than what it `was` is wanted by now."""
        return await self._update(name, NODES.c.upgrade == _json(was), upgrade=_json(upgrade))

    async def revoke(self, name: str) -> bool:
        """Remember that its identity no longer counts; whether there is such a node."""
        return await self._update(name, revoked=self._clock.time())

    async def spoke(self, name: str, *, place: str, counter: int) -> bool:
        """Remember from where it spoke, and the number of its assertion; False when a higher one came meanwhile."""
        fresh = (NODES.c.name == name) & (NODES.c.counter < counter)
        async with self._database.write() as connection:
            done = await connection.execute(update(NODES).where(fresh).values(place=place, counter=counter))
        return done.rowcount == 1

    async def _update(self, name: str, *conditions: ColumnElement[bool], **values: object) -> bool:
        async with self._database.write() as connection:
            done = await connection.execute(update(NODES).where(NODES.c.name == name, *conditions).values(**values))
        return done.rowcount == 1

    async def find(self, name: str) -> NodeRecord | None:
        """One node."""
        return await self._found(name)

    async def _find(self, names: Sequence[str]) -> list[NodeRecord | None]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(NODES).where(NODES.c.name.in_(set(names))))
            found = {row.name: _record(row) for row in rows}
        return [found.get(name) for name in names]

    async def all(self) -> list[NodeRecord]:
        """Every node, by name."""
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(select(NODES).order_by(NODES.c.name))]

    async def names(self) -> list[str]:
        """Every node's name, sorted."""
        async with self._database.read() as connection:
            return [row.name for row in await connection.execute(select(NODES.c.name).order_by(NODES.c.name))]

    async def missing(self, names: Collection[str]) -> set[str]:
        """Those of `names` that no node has."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(NODES.c.name).where(NODES.c.name.in_(names)))
            return set(names) - {row.name for row in rows}

    async def seen(self) -> dict[str, float]:
        """When each node that is not revoked was last heard."""
        query = select(NODES.c.name, NODES.c.seen).where(NODES.c.revoked.is_(None)).order_by(NODES.c.name)
        async with self._database.read() as connection:
            return {row.name: row.seen for row in await connection.execute(query)}

    async def remove(self, name: str, *, joined: float | None = None) -> bool:
        """Forget a node, the one that `joined` then if that is said; whether there was one."""
        mine = NODES.c.name == name
        async with self._database.write() as connection:
            done = await connection.execute(
                delete(NODES).where(mine if joined is None else mine & (NODES.c.joined == joined))
            )
            if done.rowcount == 1:
                await connection.execute(delete(NODE_MODULES).where(NODE_MODULES.c.node == name))
                await connection.execute(delete(NODE_GRANTS).where(NODE_GRANTS.c.node == name))
        return done.rowcount == 1

    async def grant(self, node: str, patterns: Iterable[str], *, by: str, most: int) -> bool:
        """Let `node` have tokens for the modules that `patterns` match; False when it has `most` of them already."""
        mine = NODE_GRANTS.c.node == node
        async with self._database.write() as connection:
            known = {row.pattern for row in await connection.execute(select(NODE_GRANTS.c.pattern).where(mine))}
            new = [pattern for pattern in dict.fromkeys(patterns) if pattern not in known]
            if len(known) + len(new) > most:
                return False
            now = self._clock.time()
            for pattern in new:
                await connection.execute(insert(NODE_GRANTS).values(node=node, pattern=pattern, at=now, by=by[:300]))
        return True

    async def deny(self, node: str, pattern: str) -> bool:
        """Take a grant back; whether there was one."""
        mine = (NODE_GRANTS.c.node == node) & (NODE_GRANTS.c.pattern == pattern)
        async with self._database.write() as connection:
            return (await connection.execute(delete(NODE_GRANTS).where(mine))).rowcount == 1

    async def grants(self, node: str) -> list[Grant]:
        """Which modules `node` may have tokens for."""
        query = select(NODE_GRANTS).where(NODE_GRANTS.c.node == node).order_by(NODE_GRANTS.c.pattern)
        async with self._database.read() as connection:
            return [Grant(row.pattern, row.by, row.at) for row in await connection.execute(query)]

    async def used_module(self, node: str, module: str, *, most: int) -> bool:
        """Remember that `node` got a token for `module`; False when it has `most` others already."""
        mine = NODE_MODULES.c.node == node
        async with self._database.write() as connection:
            known = {row.module for row in await connection.execute(select(NODE_MODULES.c.module).where(mine))}
            if module in known:
                return True
            if len(known) >= most:
                return False
            await connection.execute(insert(NODE_MODULES).values(node=node, module=module, granted=self._clock.time()))
        return True

    async def modules(self, node: str) -> list[str]:
        """Modules that `node` got tokens for, by name."""
        query = select(NODE_MODULES.c.module).where(NODE_MODULES.c.node == node).order_by(NODE_MODULES.c.module)
        async with self._database.read() as connection:
            return [row.module for row in await connection.execute(query)]


def _record(row: Row[tuple[object, ...]]) -> NodeRecord:
    found = row._mapping
    return NodeRecord(
        found["name"],
        found["joined"],
        found["seen"],
        msgspec.json.decode(found["facts"], type=Facts),
        msgspec.json.decode(found["heartbeat"], type=Heartbeat),
        found["clock_offset"],
        found["availability"],
        msgspec.json.decode(found["labels"], type=dict[str, str]),
        found["place"],
        found["counter"],
        found["revoked"],
        msgspec.json.decode(found["trouble"], type=Trouble) if found["trouble"] else None,
        msgspec.json.decode(found["upgrade"], type=Upgrade) if found["upgrade"] else None,
    )


def _json(value: object | None) -> str | None:
    return msgspec.json.encode(value).decode() if value is not None else None

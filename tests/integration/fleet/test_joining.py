"""Many nodes that join at once, on every database that we run on: each counts once, and they share transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from llmagentos.api.nodes import Facts
from llmagentos.core.clock import ManualClock
from llmagentos.fleet.node import keys
from llmagentos.security.certificates import CertificateAuthority
from llmagentos.security.identity import Kind
from llmagentos.storage import tables
from llmagentos.storage.audit import AuditRecords
from llmagentos.storage.certificates import KEPT, CertificateRecords
from llmagentos.storage.database import Database
from llmagentos.storage.nodes import NodeRecords
from llmagentos.storage.tokens import Scope, TokenRecords

pytestmark = pytest.mark.anyio
assert tables.METADATA is not None
MANY = 40


class Store:
    """What a server keeps of nodes that join."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.nodes = NodeRecords(database, self.clock)
        self.tokens = TokenRecords(database, self.clock)
        self.certificates = CertificateRecords(database, self.clock)
        self.audit = AuditRecords(database, self.clock)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await made.create_all()
    yield made
    await made.aclose()


async def test_those_who_come_at_once_share_transactions(database: Database, tmp_path: Path) -> None:
    store, commits = Store(database), []
    ca = CertificateAuthority(tmp_path)
    names = [f"n{number}" for number in range(MANY)]
    _, join = await store.tokens.create(Kind.JOIN, "all", by="me", one_time=True, uses=MANY, scope=Scope(["web"]))
    event.listen(database.engine.sync_engine, "commit", commits.append)

    async def one(name: str) -> None:
        assert await store.tokens.consume(join.id) == Scope(["web"])
        assert await store.nodes.add(name, Facts(name, "1"), place=name, labels={}) is not None
        certificate = ca.certify(keys.request(keys.generate(), name), name, days=1, now=store.clock.time())
        await store.certificates.add(certificate)
        await store.tokens.create(Kind.NODE, name, by="join:all")
        assert await store.nodes.set_facts(name, Facts(name, "2"))
        await store.audit.add("join:all", "POST /api/v1/nodes/join", "/api/v1/nodes/join", 200)

    await asyncio.gather(*map(one, names))
    assert len(commits) < MANY, f"{len(commits)} transactions"
    assert await store.tokens.consume(join.id) is None
    assert [(each.name, each.facts.version) for each in await store.nodes.all()] == [(n, "2") for n in sorted(names)]
    assert [await store.certificates.newest(name) is not None for name in names] == [True] * MANY
    assert {each.subject for each in await store.tokens.all()} == set(names), "the join token is used up"
    assert len(await store.audit.newest(100)) == MANY


async def test_a_name_is_given_once_and_a_token_as_often_as_it_says(database: Database) -> None:
    """Also by two servers on one database."""
    one, other = Store(database), Store(database)
    _, join = await one.tokens.create(Kind.JOIN, "three", by="me", one_time=True, uses=3)
    _, over = await one.tokens.create(Kind.JOIN, "over", by="me", one_time=True, ttl=5)
    _, bearer = await one.tokens.create(Kind.VIEWER, "vi", by="me")
    given = await asyncio.gather(*(store.tokens.consume(join.id) for store in (one, other) * 4))
    assert sum(scope is not None for scope in given) == 3
    one.clock.advance(6)
    assert await asyncio.gather(*(one.tokens.consume(id_) for id_ in (over.id, bearer.id, "none"))) == [None] * 3
    facts = Facts("a", "1")
    entered = await asyncio.gather(
        *(store.nodes.add("a", facts, place=f"p{n}", labels={}) for n, store in enumerate((one, other) * 4))
    )
    assert sum(joined is not None for joined in entered) == 1
    [winner] = [f"p{n}" for n, joined in enumerate(entered) if joined is not None]
    found = await one.nodes.find("a")
    assert found is not None and found.place == winner
    assert await one.nodes.find("b") is None
    assert not await one.nodes.set_facts("b", facts)


async def test_only_the_newest_certificates_count(database: Database, tmp_path: Path) -> None:
    store, ca = Store(database), CertificateAuthority(tmp_path)

    def certificate(name: str) -> object:
        store.clock.advance(1)
        return ca.certify(keys.request(keys.generate(), name), name, days=1, now=store.clock.time())

    made = [certificate("a") for _ in range(KEPT + 2)]
    for each in made[:KEPT]:
        await store.certificates.add(each)
    await asyncio.gather(*(store.certificates.add(each) for each in (*made[KEPT:], certificate("b"))))
    assert set(await store.certificates.good("a")) == {each.pem for each in made[-KEPT:]}
    assert len(await store.certificates.good("b")) == 1

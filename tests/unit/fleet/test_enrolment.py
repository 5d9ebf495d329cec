"""A node's identity ends for good, also in the middle of what is made for it: nobody can renew in a race with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llmagentos.api.nodes import Facts, Join, NodeRevoked
from llmagentos.core.clock import SystemClock
from llmagentos.core.errors import Conflict
from llmagentos.core.events import Hub
from llmagentos.fleet.enrolment import Enrolment
from llmagentos.fleet.node import keys
from llmagentos.fleet.presence import Presence
from llmagentos.security.certificates import CertificateAuthority
from llmagentos.security.identity import Identity, Kind
from llmagentos.storage import tables
from llmagentos.storage.certificates import CertificateRecords
from llmagentos.storage.database import Database
from llmagentos.storage.nodes import NodeRecords
from llmagentos.storage.tokens import TokenRecords

pytestmark = pytest.mark.anyio
assert tables.METADATA is not None
ADMIN = Identity(Kind.ADMIN, "me", "t")


class Machines:
    """A server's nodes on a database in memory. `meanwhile` runs once, just before the next thing is made."""

    def __init__(self, database: Database, directory: Path) -> None:
        clock = SystemClock()
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.records, self.tokens = NodeRecords(database, clock), _Tokens(database, clock)
        self.certificates = _Certificates(database, clock)
        self.tokens.before = self.certificates.before = self._before

        async def placed(node: str, module: str) -> str | None:
            return "job 1"

        self.enrolment = Enrolment(
            self.records,
            self.certificates,
            self.tokens,
            CertificateAuthority(directory),
            Presence(clock, 30),
            Hub(),
            clock,
            days=1,
            forget_tokens=lambda: None,
            placed=placed,
        )

    async def _before(self) -> None:
        if (meanwhile := self.meanwhile) is not None:
            self.meanwhile = None
            await meanwhile()

    async def join(self, directory: Path) -> keys.Credential:
        key, path = keys.generate(), directory / "n.pem"
        request = Join("n", "n", "1", keys.request(key, "n"), "here")
        joined = await self.enrolment.join(ADMIN, request)
        path.write_bytes(keys.pem(key, joined.certificate))
        return keys.Credential(path)

    async def left(self) -> list[str]:
        """What still counts for the node."""
        found = [f"{each.kind.value} token" for each in await self.tokens.all() if each.subject in ("n", "m")]
        return found + ["certificate" for _ in await self.certificates.good("n")]


class _Tokens(TokenRecords):
    before: Callable[[], Awaitable[None]]

    async def create(self, *args: Any, **options: Any) -> Any:
        await self.before()
        return await super().create(*args, **options)


class _Certificates(CertificateRecords):
    before: Callable[[], Awaitable[None]]

    async def add(self, certificate: Any) -> None:
        await self.before()
        await super().add(certificate)


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Machines]:
    database = Database("sqlite:///:memory:")
    await database.create_all()
    yield Machines(database, tmp_path)
    await database.aclose()


async def removed(machines: Machines) -> None:
    await machines.records.remove("n")
    await machines.enrolment.forget("n")


ENDS: dict[str, Callable[[Machines], Awaitable[None]]] = {
    "revoked": lambda machines: machines.enrolment.revoke("n"),
    "removed": removed,
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("what", ["proof", "renewal", "module's token"])
async def test_nothing_that_a_node_asked_for_outlives_its_end(machines, tmp_path, how, what):
    credential = await machines.join(tmp_path)
    proof = credential.assertion("n", counter=1, place="here", now=SystemClock().time())
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "proof": lambda: machines.enrolment.exchange(proof),
        "renewal": lambda: machines.enrolment.renew("n", keys.request(keys.generate(), "n")),
        "module's token": lambda: machines.enrolment.module_token("n", "m"),
    }
    machines.meanwhile = lambda: ENDS[how](machines)
    with pytest.raises(NodeRevoked):
        await asked[what]()
    assert machines.meanwhile is None
    assert await machines.left() == []


@pytest.mark.parametrize("how", ENDS)
async def test_a_node_that_is_revoked_while_it_joins_is_none(machines, tmp_path, how):
    machines.meanwhile = lambda: ENDS[how](machines)
    with pytest.raises(Conflict):
        await machines.join(tmp_path)
    assert await machines.left() == []
    assert await machines.records.add("n2", Facts("n", "1"), place="here", labels={}) is not None, "others may join"

"""Certificates of nodes: which keys stand for which node, until when, and which were revoked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Float, String, Table, Text, delete, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from llmagentos.core.clock import Clock
from llmagentos.security.certificates import Certificate
from llmagentos.storage.database import METADATA, Database
from llmagentos.storage.gathering import Gathered

CERTIFICATES = Table(
    "node_certificates",
    METADATA,
    Column("serial", String(40), primary_key=True),
    Column("node", String(64), nullable=False, index=True),
    Column("pem", Text, nullable=False),
    Column("thumbprint", String(64), nullable=False),
    Column("issued", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("revoked", Float),
)
KEPT = 4
"""Certificates of one node that count at the same time: the one in use, and renewals whose answers were lost."""
KEPT_EXPIRED_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate as stored; `revoked` is when."""

    certificate: Certificate
    revoked: float | None

    def good(self, now: float) -> bool:
        """Whether it counts."""
        return self.revoked is None and now < self.certificate.expires


class CertificateRecords:
    """Queries over the certificates."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._together = Gathered(self._add)

    async def add(self, certificate: Certificate) -> None:
        """A new one; the oldest ones beyond `KEPT` are revoked."""
        await self._together(certificate)

    async def _add(self, certificates: Sequence[Certificate]) -> list[None]:
        theirs = CERTIFICATES.c.node.in_({each.node for each in certificates}) & CERTIFICATES.c.revoked.is_(None)
        newest = select(CERTIFICATES.c.node, CERTIFICATES.c.serial).where(theirs).order_by(CERTIFICATES.c.issued.desc())
        count = Counter(each.node for each in certificates)
        surplus: list[str] = []
        async with self._database.write() as connection:
            for row in await connection.execute(newest):
                count[row.node] += 1
                if count[row.node] > KEPT:
                    surplus.append(row.serial)
            rows = [
                {name: getattr(each, name) for name in ("serial", "node", "pem", "thumbprint", "issued", "expires")}
                for each in certificates
            ]
            await connection.execute(insert(CERTIFICATES), rows)
            if surplus:
                await self._revoke_on(connection, CERTIFICATES.c.serial.in_(surplus))
        return [None for _ in certificates]

    async def find(self, serial: str) -> CertificateRecord | None:
        """The certificate with this number."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(CERTIFICATES).where(CERTIFICATES.c.serial == serial))).first()
        return _record(row) if row is not None else None

    async def newest(self, node: str) -> CertificateRecord | None:
        """The one that a node got last."""
        query = select(CERTIFICATES).where(CERTIFICATES.c.node == node).order_by(CERTIFICATES.c.issued.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return _record(row) if row is not None else None

    async def good(self, node: str) -> list[str]:
        """Those of the node that count, as PEM."""
        mine = (CERTIFICATES.c.node == node) & CERTIFICATES.c.revoked.is_(None)
        query = select(CERTIFICATES.c.pem).where(mine, CERTIFICATES.c.expires > self._clock.time())
        async with self._database.read() as connection:
            return [row.pem for row in await connection.execute(query)]

    async def supersede(self, certificate: Certificate) -> None:
        """Its node uses this one now: older ones no longer count."""
        older = (CERTIFICATES.c.node == certificate.node) & (CERTIFICATES.c.issued < certificate.issued)
        await self._revoke(older)

    async def revoke(self, node: str, *, serial: str | None = None) -> None:
        """None of the node's certificates counts any more, or not the one with this number."""
        mine = CERTIFICATES.c.node == node
        await self._revoke(mine if serial is None else mine & (CERTIFICATES.c.serial == serial))

    async def _revoke(self, which: ColumnElement[bool]) -> None:
        async with self._database.write() as connection:
            await self._revoke_on(connection, which)

    async def _revoke_on(self, connection: AsyncConnection, which: ColumnElement[bool]) -> None:
        good = CERTIFICATES.c.revoked.is_(None)
        await connection.execute(update(CERTIFICATES).where(which, good).values(revoked=self._clock.time()))

    async def forget(self, node: str) -> None:
        """The node was removed."""
        async with self._database.write() as connection:
            await connection.execute(delete(CERTIFICATES).where(CERTIFICATES.c.node == node))

    async def prune(self) -> int:
        """Delete those that expired or were revoked a month ago; how many."""
        limit = self._clock.time() - KEPT_EXPIRED_S
        old = (CERTIFICATES.c.expires < limit) | (CERTIFICATES.c.revoked < limit)
        async with self._database.write() as connection:
            done = await connection.execute(delete(CERTIFICATES).where(old))
        return done.rowcount


def _record(row: Row[tuple[object, ...]]) -> CertificateRecord:
    found = row._mapping
    return CertificateRecord(
        Certificate(
            found["serial"], found["node"], found["pem"], found["thumbprint"], found["issued"], found["expires"]
        ),
        found["revoked"],
    )

"""Certificates of nodes: which keys stand for which node, until when, and which were revoked."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Float, String, Table, Text, delete, insert, select, update
from sqlalchemy.engine import Row

from llmagentos.core.clock import Clock
from llmagentos.security.certificates import Certificate
from llmagentos.storage.database import METADATA, Database

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

    async def add(self, certificate: Certificate) -> None:
        """A new one; the oldest ones beyond `KEPT` are revoked."""
        mine = (CERTIFICATES.c.node == certificate.node) & CERTIFICATES.c.revoked.is_(None)
        older = select(CERTIFICATES.c.serial).where(mine).order_by(CERTIFICATES.c.issued.desc()).offset(KEPT - 1)
        async with self._database.write() as connection:
            surplus = [row.serial for row in await connection.execute(older.limit(100))]
            await connection.execute(
                insert(CERTIFICATES).values(
                    serial=certificate.serial,
                    node=certificate.node,
                    pem=certificate.pem,
                    thumbprint=certificate.thumbprint,
                    issued=certificate.issued,
                    expires=certificate.expires,
                )
            )
            await connection.execute(
                update(CERTIFICATES).where(CERTIFICATES.c.serial.in_(surplus)).values(revoked=self._clock.time())
            )

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
        good = CERTIFICATES.c.revoked.is_(None)
        async with self._database.write() as connection:
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

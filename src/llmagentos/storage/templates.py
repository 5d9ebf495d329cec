"""Job templates: one row each, with the version in force."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Float, Integer, String, Table, Text, delete, insert, select, update
from sqlalchemy.engine import Row

from llmagentos.api.templates import Change, Template, TemplateSpec
from llmagentos.core.clock import Clock
from llmagentos.storage.database import METADATA, Database

TEMPLATES = Table(
    "job_templates",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("spec", Text, nullable=False),  # api.templates.TemplateSpec as JSON
    Column("updated", Float, nullable=False),
    Column("updated_by", String(300), nullable=False),
)


class TemplateRecords:
    """Queries over the templates."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def all(self) -> list[Template]:
        """All templates by name."""
        async with self._database.read() as connection:
            return [_template(row) for row in await connection.execute(select(TEMPLATES).order_by(TEMPLATES.c.name))]

    async def find(self, name: str) -> Template | None:
        """One template."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(TEMPLATES).where(TEMPLATES.c.name == name))).first()
        return _template(row) if row is not None else None

    async def put(self, name: str, spec: TemplateSpec, by: str) -> tuple[Template, Change]:
        """Make a template or give it a new version."""
        text = msgspec.json.encode(spec).decode()
        values = {"spec": text, "updated": self._clock.time(), "updated_by": by}
        query = select(TEMPLATES).where(TEMPLATES.c.name == name)
        async with self._database.write() as connection:
            row = (await connection.execute(query.with_for_update())).first()
            if row is not None and row.spec == text:
                return _template(row), "unchanged"
            if row is None:
                await connection.execute(insert(TEMPLATES).values(name=name, version=1, **values))
            else:
                changed = update(TEMPLATES).where(TEMPLATES.c.name == name)
                await connection.execute(changed.values(version=row.version + 1, **values))
            after = (await connection.execute(query)).one()
        return _template(after), "created" if row is None else "changed"

    async def remove(self, name: str) -> bool:
        """Delete a template; False when there is none."""
        async with self._database.write() as connection:
            done = await connection.execute(delete(TEMPLATES).where(TEMPLATES.c.name == name))
        return bool(done.rowcount == 1)

    async def bundles(self) -> set[str]:
        """Every bundle that a template refers to."""
        return {template.spec.job.bundle for template in await self.all()}


def _template(row: Row[Any]) -> Template:
    spec = msgspec.json.decode(row.spec, type=TemplateSpec)
    return Template(row.name, row.version, spec, row.updated, row.updated_by)

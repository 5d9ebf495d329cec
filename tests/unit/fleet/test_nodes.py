"""What people and nodes say of one node at the same moment: nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from llmagentos.api.nodes import Facts, Heartbeat, Labels, Upgrade, UpgradeReport
from llmagentos.core.clock import SystemClock
from llmagentos.core.errors import InvalidInput
from llmagentos.core.events import Hub
from llmagentos.fleet.enrolment import Enrolment
from llmagentos.fleet.nodes import MAX_LABELS, Nodes
from llmagentos.fleet.presence import Presence
from llmagentos.fleet.upgrades import Upgrades
from llmagentos.security.certificates import CertificateAuthority
from llmagentos.storage import tables
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.certificates import CertificateRecords
from llmagentos.storage.database import Database
from llmagentos.storage.nodes import NodeRecords
from llmagentos.storage.tokens import TokenRecords

pytestmark = pytest.mark.anyio
assert tables.METADATA is not None


class Scene:
    """The node `n`; `meanwhile` runs while it is looked whether it works on a job."""

    def __init__(self, database: Database, directory: Path) -> None:
        clock, hub = SystemClock(), Hub()
        presence = Presence(clock, 30)
        self.records = NodeRecords(database, clock)
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

        async def placed(node: str, module: str) -> str | None:
            return None

        enrolment = Enrolment(
            self.records,
            CertificateRecords(database, clock),
            TokenRecords(database, clock),
            CertificateAuthority(directory),
            presence,
            hub,
            clock,
            days=1,
            forget_tokens=lambda: None,
            placed=placed,
        )
        self.nodes = Nodes(self.records, enrolment, presence, hub, clock, busy=self._busy)
        self.upgrades = Upgrades(self.records, Blobs(directory / "wheels"), hub, clock)

    async def _busy(self, name: str) -> bool:
        if self.meanwhile is not None:
            await self.meanwhile()
        return False

    async def availability(self) -> str:
        record = await self.records.find("n")
        assert record is not None
        return record.availability


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    database = Database(f"sqlite:///{tmp_path}/nodes.db")
    await database.create_all()
    made = Scene(database, tmp_path)
    await made.records.add("n", Facts("n", "1"), place="here", labels={})
    yield made
    await database.aclose()


async def test_a_node_that_is_empty_as_somebody_opens_it_is_open(scene: Scene) -> None:
    await scene.nodes.change("n", "drain", {})
    scene.meanwhile = lambda: scene.nodes.change("n", "uncordon", {})
    await scene.nodes.beat("n", Heartbeat())
    assert await scene.availability() == "open"
    scene.meanwhile = None
    await scene.nodes.change("n", "drain", {})
    await scene.nodes.beat("n", Heartbeat())
    assert await scene.availability() == "drained"


async def test_labels_that_are_set_at_once_are_all_there(scene: Scene) -> None:
    await asyncio.gather(*(scene.nodes.set_labels("n", Labels({f"k{n}": "v"}), {}) for n in range(8)))
    record = await scene.records.find("n")
    assert record is not None
    assert record.labels == {f"k{n}": "v" for n in range(8)}
    with pytest.raises(InvalidInput, match="too many"):
        await scene.nodes.set_labels("n", Labels({f"m{n}": "v" for n in range(MAX_LABELS)}), {})
    summary = await scene.nodes.set_labels("n", Labels({f"k{n}": None for n in range(7)}), {})
    assert summary.labels == {"k7": "v"}


async def test_a_version_that_is_wanted_as_another_one_ends_stays_wanted(scene: Scene) -> None:
    first, second = Upgrade("1", "a" * 64, at=1.0), Upgrade("2", "b" * 64, at=2.0)
    await scene.records.set_upgrade("n", first)
    assert not await scene.records.end_upgrade("n", Upgrade("1", "a" * 64, "done", at=3.0), was=second)
    await scene.upgrades.report("n", UpgradeReport("a" * 64, "failed", "no room"))
    record = await scene.records.find("n")
    assert record is not None and record.upgrade is not None
    assert (record.upgrade.state, record.upgrade.message) == ("failed", "no room")
    await scene.records.set_upgrade("n", second)
    assert not await scene.records.end_upgrade("n", Upgrade("1", "a" * 64, "done", at=3.0), was=first)
    record = await scene.records.find("n")
    assert record is not None and record.upgrade == second

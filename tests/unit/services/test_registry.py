"""The embedded registry: leases on a clock of ours, rows in a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from llmagentos.api.registry import Change, Registration, ServiceSpec
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import Forbidden, InvalidInput
from llmagentos.kernel.leases import Lease
from llmagentos.security.identity import Identity, Kind
from llmagentos.services.registry import embedded
from llmagentos.services.registry.embedded import TOPIC, EmbeddedRegistry, ServiceTaken, UnknownInstance
from llmagentos.storage.database import Database
from llmagentos.storage.instances import InstanceRecords
from support.server import eventually

ADMIN = Identity(Kind.ADMIN, "admin")
A = Identity(Kind.MODULE, "a")


class World:
    def __init__(self, path: Path) -> None:
        self.database = Database(f"sqlite:///{path}/test.db")
        self.clock = ManualClock()
        self.changes: list[tuple[str, str]] = []
        self.registry = self.started()

    def started(self) -> EmbeddedRegistry:
        return EmbeddedRegistry(InstanceRecords(self.database), self.publish, self.clock)

    def publish(self, topic: str, change: Change) -> None:
        assert topic == TOPIC
        self.changes.append((change.kind, change.instance.module))

    async def expire(self) -> None:
        """One look of the expiry loop, whole: the next one has begun."""
        looks, expired = 0, self.registry._leases.expired

        def counted() -> list[Lease]:
            nonlocal looks
            looks += 1
            return expired()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(embedded, "_LOOK_S", 0.001)
            patch.setattr(self.registry._leases, "expired", counted)
            loop = asyncio.create_task(self.registry.expire())
            await eventually(lambda: looks > 1)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    async def rename(self, table: str, other: str) -> None:
        async with self.database.write() as connection:
            await connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {other}")

    def names(self) -> list[str]:
        return [instance.module for instance in self.registry.directory.all()]


def offering(module: str, *services: str, address: str = "http://127.0.0.1:1") -> Registration:
    return Registration(module, "1", address, [ServiceSpec(name) for name in services])


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]:
    def start(work: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            world = World(tmp_path)
            await world.database.create_all()
            try:
                await work(world)
            finally:
                await world.database.aclose()

        asyncio.run(main())

    return start


def test_from_registration_to_departure(run: Any) -> None:
    async def work(world: World) -> None:
        instance = await world.registry.register(A, offering("a", "s"))
        assert world.registry.directory.offering("s") == [instance]
        await world.registry.drain(A, instance.id)
        await world.registry.drain(A, instance.id)
        assert world.registry.directory.offering("s")[0].state == "draining"
        await world.registry.deregister(A, instance.id)
        assert world.changes == [("up", "a"), ("draining", "a"), ("down", "a")]
        with pytest.raises(UnknownInstance):
            world.registry.renew(A, instance.id)
        assert await InstanceRecords(world.database).all() == []

    run(work)


def test_a_lease_runs_out_unless_renewed(run: Any) -> None:
    async def work(world: World) -> None:
        kept = await world.registry.register(A, offering("a", "s"))
        lost = await world.registry.register(A, offering("a", "s"))
        world.clock.advance(9.0)
        world.registry.renew(A, kept.id)
        world.clock.advance(2.0)
        with pytest.raises(UnknownInstance):
            world.registry.renew(A, lost.id)
        await world.expire()
        assert world.registry.directory.all() == [kept]
        world.clock.wall += 1e6
        await world.expire()
        assert world.registry.directory.all() == [kept], "a wall clock that jumps expires nothing"

    run(work)


def test_a_database_that_is_away_for_a_while_ends_nothing(run: Any) -> None:
    async def work(world: World) -> None:
        await world.registry.register(A, offering("a", "s"))
        world.clock.advance(11.0)
        await world.rename("instances", "elsewhere")
        await world.expire()
        assert world.names() == []
        await world.rename("elsewhere", "instances")
        assert len(await InstanceRecords(world.database).all()) == 1
        await world.expire()
        assert await InstanceRecords(world.database).all() == []

    run(work)


def test_a_lease_begins_when_the_database_has_the_instance(run: Any) -> None:
    async def work(world: World) -> None:
        async with world.database.write():
            registering = asyncio.create_task(world.registry.register(A, offering("a", "s")))
            await eventually(lambda: world.registry._registering.locked())
            world.clock.advance(11.0)
            await world.expire()
        instance = await registering
        world.registry.renew(A, instance.id)
        world.clock.advance(11.0)
        await world.expire()
        assert world.names() == []

    run(work)


def test_a_restart_gives_one_full_lease(run: Any) -> None:
    async def work(world: World) -> None:
        first = await world.registry.register(A, offering("a", "s"))
        await world.registry.drain(A, first.id)
        world.clock.steady = 0.0
        world.registry = world.started()
        await world.registry.restore()
        assert [(i.id, i.state) for i in world.registry.directory.all()] == [(first.id, "draining")]
        world.clock.advance(9.0)
        world.registry.renew(A, first.id)
        world.clock.advance(11.0)
        await world.expire()
        assert world.names() == []
        assert await InstanceRecords(world.database).all() == []

    run(work)


def test_who_may_what(run: Any) -> None:
    async def work(world: World) -> None:
        with pytest.raises(Forbidden, match="may not register the module 'b'"):
            await world.registry.register(A, offering("b", "s"))
        other = await world.registry.register(ADMIN, offering("b", "s"))
        for attempt in (world.registry.drain, world.registry.deregister):
            with pytest.raises(Forbidden):
                await attempt(A, other.id)
        with pytest.raises(Forbidden):
            world.registry.renew(A, other.id)
        with pytest.raises(ServiceTaken, match="'s' is already offered by the module 'b'"):
            await world.registry.register(A, offering("a", "s"))
        for address in ("", "ftp://x", "127.0.0.1:80", "http://", "http://h/path", "http://me:pw@h", "http://h?q"):
            with pytest.raises(InvalidInput, match="address"):
                await world.registry.register(A, offering("a", "t", address=address))
        await world.registry.deregister(ADMIN, other.id)
        await world.registry.register(A, offering("a", "s"))

    run(work)


def test_of_two_modules_at_once_one_gets_the_name(run: Any) -> None:
    async def work(world: World) -> None:
        tried = [world.registry.register(ADMIN, offering(name, "s")) for name in "ab"]
        results = await asyncio.gather(*tried, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Instance", "ServiceTaken"]

    run(work)

"""What is known of the instances: fed by the registry's changes, asked at every call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from llmagentos.api.registry import Change, Instance, MethodSpec


class Directory:
    """The instances, in memory, within one event loop. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self._instances: dict[str, Instance] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def all(self) -> list[Instance]:
        """Every instance, in order of registration."""
        return list(self._instances.values())

    def get(self, instance: str) -> Instance | None:
        """The instance with this id."""
        return self._instances.get(instance)

    def offering(self, service: str) -> list[Instance]:
        """The instances that take calls for `service`: draining ones only when there is no other."""
        found = [i for i in self._instances.values() if any(s.name == service for s in i.services)]
        return [i for i in found if i.state == "up"] or found

    def services(self) -> set[str]:
        """The names of all services."""
        return {service.name for instance in self._instances.values() for service in instance.services}

    def replace(self, instances: Iterable[Instance]) -> None:
        """Forget everything and know `instances`."""
        self._instances = {instance.id: instance for instance in instances}
        self._changed()

    def apply(self, change: Change) -> None:
        """Take in one change."""
        if change.kind == "down":
            self._instances.pop(change.instance.id, None)
        else:
            self._instances[change.instance.id] = change.instance
        self._changed()

    async def changed(self) -> None:
        """Wait for the next change."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _changed(self) -> None:
        self.version += 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


def method_of(instance: Instance, service: str, method: str) -> MethodSpec | None:
    """What `instance` says of a method of its service."""
    for spec in instance.services:
        if spec.name == service:
            return next((known for known in spec.methods if known.name == method), None)
    return None

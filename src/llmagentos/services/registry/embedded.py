"""The registry that is the server's own: instances in memory under leases, each with a row that survives a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from llmagentos.api.http import Target
from llmagentos.api.registry import Change, Instance, Registration
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from llmagentos.core.ids import new_id
from llmagentos.kernel.leases import LeaseLost, LeaseTable
from llmagentos.security.identity import Identity, Kind
from llmagentos.services.directory import Directory
from llmagentos.storage.instances import InstanceRecord, InstanceRecords

TOPIC = "registry"
LEASE_S = 10.0
MAX_INSTANCES = 10_000
_LOOK_S = 0.5

_log = log.get(__name__)


class UnknownInstance(NotFound):
    """The instance is not (or no longer) registered: it registers again."""

    code = "unknown_instance"


class ServiceTaken(Conflict):
    """Another module already offers a service of this name."""

    code = "service_taken"


class EmbeddedRegistry:
    """Registers, renews, drains and expires instances; publishes each `Change` on topic `registry`.

    `directory` is always current: who runs in the server may read it directly.
    """

    def __init__(
        self,
        records: InstanceRecords,
        publish: Callable[[str, Change], None],
        clock: Clock,
        *,
        lease_s: float = LEASE_S,
    ) -> None:
        self.directory = Directory()
        self.lease_s = lease_s
        self._records = records
        self._publish = publish
        self._clock = clock
        self._leases = LeaseTable(clock, lease_s)
        self._fences: dict[str, int] = {}
        self._gone: set[str] = set()
        self._registering = asyncio.Lock()

    async def restore(self) -> None:
        """Know again what was registered before the server stopped; each gets one full lease to renew."""
        records = await self._records.all()
        for record in records:
            self._leases.restore(record.instance.id, record.owner, record.fence)
            self._fences[record.instance.id] = record.fence
        self.directory.replace(record.instance for record in records)
        self._count()

    async def register(self, identity: Identity, request: Registration) -> Instance:
        """A new instance. A module may only register itself.

        Raises `Forbidden`, `InvalidInput` for an address that is none, `ServiceTaken`.
        """
        async with self._registering:  # two at once must not both find a service's name free
            return await self._register(identity, request)

    async def _register(self, identity: Identity, request: Registration) -> Instance:
        self._check(identity, request)
        instance = Instance(
            id=new_id(),
            module=request.module,
            version=request.version,
            address=request.address.rstrip("/"),
            services=request.services,
            agents=request.agents,
            state="up",
            registered=self._clock.time(),
        )
        fence = self._leases.grant(instance.id, str(identity)).token
        try:
            await self._records.add(InstanceRecord(instance, str(identity), fence))
        finally:
            self._leases.drop(instance.id)
        self._leases.restore(instance.id, str(identity), fence)  # a whole one, however long the database took
        self._fences[instance.id] = fence
        self._tell("up", instance)
        _log.info("instance up", instance=instance.id, module=instance.module, address=instance.address)
        return instance

    def renew(self, identity: Identity, instance: str) -> None:
        """One more lease. Raises `UnknownInstance` after the last one ran out."""
        found = self._own(identity, instance)
        try:
            self._leases.renew(found.id, self._fences[found.id])
        except LeaseLost:
            raise _unknown(instance) from None

    async def drain(self, identity: Identity, instance: str) -> None:
        """Have callers go elsewhere; the instance still answers."""
        found = self._own(identity, instance)
        if found.state != "draining":
            draining = msgspec.structs.replace(found, state="draining")
            self._tell("draining", draining)
            await self._records.replace(draining)
            _log.info("instance draining", instance=instance, module=found.module)

    async def deregister(self, identity: Identity, instance: str) -> None:
        """Take an instance out."""
        found = self._own(identity, instance)
        self._leases.drop(instance)
        self._down(found, "left")
        await self._forget()

    async def expire(self) -> None:
        """Take out those that did not renew, for as long as the server runs."""
        while True:
            await asyncio.sleep(_LOOK_S)
            over = [self.directory.get(lease.key) for lease in self._leases.expired()]
            for instance in over:
                if instance is not None:
                    self._down(instance, "lease ran out")
            if self._gone:
                try:
                    await self._forget()
                except Exception as error:  # the loop goes on until storage works again
                    _log.error("instances not forgotten", instances=len(self._gone), error=str(error))

    def _down(self, instance: Instance, why: str) -> None:
        self._fences.pop(instance.id, None)
        self._gone.add(instance.id)
        self._tell("down", instance)
        _log.info("instance down", instance=instance.id, module=instance.module, why=why)

    async def _forget(self) -> None:
        """Remove the rows of those that are gone; where that fails `expire` tries again."""
        gone = sorted(self._gone)
        await self._records.remove(gone)
        self._gone.difference_update(gone)

    def _check(self, identity: Identity, request: Registration) -> None:
        if identity.kind is Kind.MODULE and identity.subject != request.module:
            raise Forbidden(
                f"{identity} may not register the module {request.module!r}",
                hint="use that module's own token: `llmctl token create --kind module NAME`",
            )
        try:
            Target.of(request.address)
            parts = urlsplit(request.address)
            if parts.scheme != "unix" and (
                parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
            ):
                raise ValueError(f"{request.address!r} is more than an origin")
        except ValueError as error:
            raise InvalidInput(f"address: {error}", hint="an origin, e.g. http://127.0.0.1:8000") from None
        if len(self.directory.all()) >= MAX_INSTANCES:
            raise Conflict(f"the registry holds {MAX_INSTANCES} instances and takes no more")
        wanted = {service.name for service in request.services}
        for other in self.directory.all():
            taken = sorted(wanted & {service.name for service in other.services})
            if other.module != request.module and taken:
                raise ServiceTaken(
                    f"the service {taken[0]!r} is already offered by the module {other.module!r}",
                    hint="register it under another name, or stop that module",
                    module=other.module,
                )

    def _own(self, identity: Identity, instance: str) -> Instance:
        found = self.directory.get(instance)
        if found is None:
            raise _unknown(instance)
        if identity.kind is Kind.MODULE and identity.subject != found.module:
            raise Forbidden(f"{identity} may not change an instance of the module {found.module!r}")
        return found

    def _tell(self, kind: str, instance: Instance) -> None:
        change = Change(kind, instance)  # type: ignore[arg-type]
        self.directory.apply(change)
        self._publish(TOPIC, change)
        self._count()

    def _count(self) -> None:
        metrics.REGISTRY_INSTANCES.set(len(self.directory.all()))


def _unknown(instance: str) -> UnknownInstance:
    return UnknownInstance(f"there is no instance {instance!r}", hint="register again")

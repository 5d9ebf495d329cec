"""Fairness between tenants: virtual token counters (VTC, arXiv 2401.00588).

The tenant with the smallest counter goes next. Its counter grows by the weighted tokens it is served,
over its share. A tenant that comes back from idle is lifted to the smallest counter of those who wait,
so that idling saves nothing up. Between tenants that always have calls waiting the service differs by
at most 2 * max(w_in * longest input, w_out * tokens that can run at once), whatever they send.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from llmagentos.kernel.ranking import Ranking

Q = TypeVar("Q")

MAX_IDLE = 10_000


@dataclass(slots=True, eq=False)
class Tenant(Generic[Q]):
    """A tenant's counter, and `queue`, what it has waiting."""

    name: str
    queue: Q
    counter: float = 0.0
    calls: int = 0
    """Waiting and running."""
    turn: int = 0
    """When it was last served or began to wait: equals take turns."""


class VirtualTokens(Generic[Q]):
    """The counters of the tenants of one model and priority.

    Idle tenants are forgotten as soon as their counter says nothing any more (they would be lifted
    above it), at the latest when more than `max_idle` of them are remembered.
    """

    def __init__(self, max_idle: int = MAX_IDLE) -> None:
        self._tenants: dict[str, Tenant[Q]] = {}
        self._waiting: Ranking[str] = Ranking(self._rank)
        self._idle: list[tuple[float, str]] = []
        self._idle_count = 0
        self._max_idle = max_idle
        self._last: Tenant[Q] | None = None
        self._turns = 0

    def __len__(self) -> int:
        return len(self._tenants)

    def get(self, name: str) -> Tenant[Q] | None:
        """The tenant, when it is remembered."""
        return self._tenants.get(name)

    def waiting(self) -> Iterator[Tenant[Q]]:
        """The tenants that have something waiting, in no order."""
        return (self._tenants[name] for name in self._waiting)

    @property
    def any_waiting(self) -> bool:
        """Whether some tenant has something waiting."""
        return len(self._waiting) > 0

    def join(self, name: str, queue: Q) -> Tenant[Q]:
        """Count a call of tenant `name`; `queue` is taken for a tenant that is new here."""
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = Tenant(name, queue)
        elif tenant.calls == 0:
            self._idle_count -= 1
        tenant.calls += 1
        return tenant

    def backlogged(self, tenant: Tenant[Q]) -> None:
        """It has something waiting from now on: lift its counter when it had nothing before."""
        if tenant.name not in self._waiting:
            tenant.counter = max(tenant.counter, self._floor())
            self._turns += 1
            tenant.turn = self._turns
            self._waiting.add(tenant.name)

    def drained(self, tenant: Tenant[Q]) -> None:
        """It has nothing waiting any more."""
        self._waiting.discard(tenant.name)

    def first(self) -> Tenant[Q]:
        """Whose turn it is. Some tenant must have something waiting."""
        return self._tenants[self._waiting.first()]

    def served(self, tenant: Tenant[Q]) -> None:
        """A call of it starts."""
        self._turns += 1
        tenant.turn = self._turns
        self._last = tenant

    def charge(self, tenant: Tenant[Q], tokens: float, share: float) -> None:
        """Count `tokens` weighted tokens of service; negative ones correct an estimate."""
        tenant.counter += tokens / share
        if tokens < 0:
            self._waiting.fallen(tenant.name)

    def leave(self, tenant: Tenant[Q]) -> None:
        """A call of it has ended or was withdrawn."""
        tenant.calls -= 1
        if tenant.calls == 0:
            heappush(self._idle, (tenant.counter, tenant.name))
            self._idle_count += 1
            self._forget()
            if len(self._idle) > 2 * self._idle_count + 64:
                self._idle = [(idle.counter, idle.name) for idle in self._tenants.values() if idle.calls == 0]
                heapify(self._idle)

    def _rank(self, name: str) -> tuple[float, int]:
        tenant = self._tenants[name]
        return tenant.counter, tenant.turn

    def _floor(self) -> float:
        if self._waiting:
            return self.first().counter
        return self._last.counter if self._last is not None else 0.0

    def _forget(self) -> None:
        floor = self._floor()
        while self._idle and (self._idle[0][0] <= floor or self._idle_count > self._max_idle):
            counter, name = heappop(self._idle)
            tenant = self._tenants.get(name)
            if tenant is not None and tenant.calls == 0 and tenant.counter == counter:
                del self._tenants[name]
                self._idle_count -= 1

"""Leases with fencing tokens: who may work on a thing, and proof of it that goes stale.

A holder renews its lease before it runs out. Every grant of a key carries a token greater than all
before it, so that whoever stores results can refuse a holder that was replaced without knowing it
(Kleppmann, "How to do distributed locking", 2016). Only the monotonic clock is used: a wall clock
that jumps expires nothing. Tokens survive a restart by `restore` from what storage holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict


class LeaseLost(Conflict):
    """The lease ran out, was released, or belongs to a later holder."""

    code = "lease_lost"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of `holder` to work on `key` until `expires` (monotonic seconds)."""

    key: str
    holder: str
    token: int
    expires: float


class LeaseTable:
    """All leases of one kind, each for `ttl` seconds from its grant or last renewal."""

    def __init__(self, clock: Clock, ttl: float) -> None:
        self._clock = clock
        self.ttl = ttl
        self._leases: dict[str, Lease] = {}
        self._highest = 0

    def grant(self, key: str, holder: str) -> Lease:
        """A new lease on `key`. Raises `Conflict` while another holder's lease is live.

        A holder that asks again for what it holds gets a new token: the old one is void.
        """
        current = self.live(key)
        if current is not None and current.holder != holder:
            raise Conflict(f"{key} is held by {current.holder}", holder=current.holder)
        self._highest += 1
        lease = Lease(key, holder, self._highest, self._clock.monotonic() + self.ttl)
        self._leases[key] = lease
        return lease

    def restore(self, key: str, holder: str, token: int) -> Lease:
        """Take up a lease that storage remembers: it lives for one full term from now."""
        self._highest = max(self._highest, token)
        lease = Lease(key, holder, token, self._clock.monotonic() + self.ttl)
        self._leases[key] = lease
        return lease

    def advance(self, token: int) -> None:
        """Never again grant a token up to `token` (the highest that storage has seen)."""
        self._highest = max(self._highest, token)

    def renew(self, key: str, token: int) -> Lease:
        """Extend the lease by a full term. Raises `LeaseLost` when it is no longer this token's."""
        current = self.check(key, token)
        lease = Lease(key, current.holder, token, self._clock.monotonic() + self.ttl)
        self._leases[key] = lease
        return lease

    def check(self, key: str, token: int) -> Lease:
        """The live lease on `key` when `token` is its token. Raises `LeaseLost` otherwise."""
        current = self.live(key)
        if current is None or current.token != token:
            raise LeaseLost(f"the lease on {key} with token {token} is over", key=key)
        return current

    def release(self, key: str, token: int) -> bool:
        """End the lease when `token` is its token; whether it was."""
        current = self._leases.get(key)
        if current is None or current.token != token:
            return False
        del self._leases[key]
        return True

    def drop(self, key: str) -> None:
        """End whatever lease there is on `key`."""
        self._leases.pop(key, None)

    def live(self, key: str) -> Lease | None:
        """The lease on `key` when it has not run out."""
        lease = self._leases.get(key)
        return lease if lease is not None and self._clock.monotonic() < lease.expires else None

    def expired(self) -> list[Lease]:
        """Take out and return every lease that has run out."""
        now = self._clock.monotonic()
        over = [lease for lease in self._leases.values() if now >= lease.expires]
        for lease in over:
            del self._leases[lease.key]
        return over

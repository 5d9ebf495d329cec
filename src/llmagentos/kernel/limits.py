"""Limits on what may be spent in a period, and how much of it has been."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmagentos.core.errors import TooManyRequests

Resource = Literal["tokens", "money", "calls", "tool_calls", "seconds", "runs"]
"""Money is in nano-units of the currency; `runs` are those under way, held as long as they are reserved."""
Period = Literal["hour", "day", "month", "life"]
Amounts = Mapping[Resource, int]

RESOURCES: tuple[Resource, ...] = ("tokens", "money", "calls", "tool_calls", "seconds", "runs")
PERIODS: tuple[Period, ...] = ("hour", "day", "month", "life")

_SOON_S = 1.0
_NEVER_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of `resource` in each `period` (calendar periods, UTC)."""

    resource: Resource
    amount: int
    period: Period = "life"
    hard: bool = True
    """A hard limit refuses, a soft one only tells."""
    thresholds: tuple[float, ...] = (0.5, 0.8, 1.0)
    """Shares of the amount at which it is told, once a period each."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit that does not allow `wanted` more, at the node `path`."""

    path: tuple[str, ...]
    limit: Limit
    used: int
    reserved: int
    wanted: int
    retry_after: float | None
    """Seconds until it may fit; None when it never will unless the limit is raised."""

    @property
    def only_reserved(self) -> bool:
        """Whether nothing but what others hold is in the way."""
        return self.used + self.wanted <= self.limit.amount


@dataclass(frozen=True, slots=True)
class Alert:
    """`used` has reached `threshold` of a limit."""

    path: tuple[str, ...]
    limit: Limit
    threshold: float
    used: int


class BudgetExceeded(TooManyRequests):
    """A hard limit does not allow it; `refusal` says which, unless the error came over the wire."""

    code = "budget_exceeded"
    refusal: Refusal

    @classmethod
    def of(cls, refusal: Refusal, **details: Any) -> BudgetExceeded:
        """The error that tells `refusal`; `details` become members of the problem document."""
        limit, path = refusal.limit, "/".join(refusal.path)
        per = "" if limit.period == "life" else f" per {limit.period}"
        error = cls(
            f"the budget of {path} allows {limit.amount} {limit.resource}{per}: "
            f"{refusal.used} used, {refusal.reserved} reserved, {refusal.wanted} wanted",
            retry_after=_NEVER_S if refusal.retry_after is None else refusal.retry_after,
            hint=f"raise it with `llmctl budget set {path}`, or wait",
            **details,
        )
        error.refusal = refusal
        return error


@dataclass(slots=True)
class Window:
    """What was used in the period that ends at `end` (wall clock; infinite for life)."""

    period: Period
    end: float = float("-inf")
    used: dict[Resource, int] = field(default_factory=dict)
    told: dict[Limit, float] = field(default_factory=dict)
    """The highest threshold told of each limit."""

    def roll(self, wall: float) -> None:
        """Begin the period that `wall` is in. A clock that goes back begins nothing."""
        if wall < self.end:
            return
        if self.used:
            self.used, self.told = {}, {}
        self.end = period_end(self.period, wall)


def period_end(period: Period, wall: float) -> float:
    """When the calendar period (UTC) around the wall-clock time ends."""
    if period == "life":
        return float("inf")
    if period in ("hour", "day"):
        length = 3600 if period == "hour" else 86_400
        return (wall // length + 1) * length
    moment = datetime.datetime.fromtimestamp(wall, datetime.UTC)
    year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
    return datetime.datetime(year, month, 1, tzinfo=datetime.UTC).timestamp()


@dataclass(slots=True, eq=False)
class Account:
    """One node of the tree: its limits, what its subtree has used and holds reserved."""

    path: tuple[str, ...]
    limits: tuple[Limit, ...] = ()
    windows: dict[Period, Window] = field(default_factory=lambda: {period: Window(period) for period in PERIODS})
    reserved: dict[Resource, int] = field(default_factory=dict)

    def used(self, resource: Resource, period: Period, wall: float) -> int:
        """What was used in the current period."""
        window = self.windows[period]
        window.roll(wall)
        return window.used.get(resource, 0)

    def refuses(self, wanted: Amounts, wall: float) -> Refusal | None:
        """The hard limit that does not allow `wanted` more; None when all do."""
        for limit in self.limits:
            more = wanted.get(limit.resource, 0)
            if not limit.hard or more <= 0:
                continue
            used, reserved = self.used(limit.resource, limit.period, wall), self.reserved.get(limit.resource, 0)
            if used + reserved + more > limit.amount:
                wait = self._wait(limit, used, more, wall)
                return Refusal(self.path, limit, used, reserved, more, wait)
        return None

    def headroom(self, resource: Resource, wall: float) -> int | None:
        """How much more the hard limits allow, 0 when they are used up; None when none asks."""
        left = [
            limit.amount - self.used(resource, limit.period, wall) - self.reserved.get(resource, 0)
            for limit in self.limits
            if limit.hard and limit.resource == resource
        ]
        return max(0, min(left)) if left else None

    def hold(self, amounts: Amounts, sign: int) -> None:
        """Add to what is reserved, or take away with `sign` -1."""
        for resource, amount in amounts.items():
            held = self.reserved.get(resource, 0) + sign * amount
            if held:
                self.reserved[resource] = held
            else:
                self.reserved.pop(resource, None)

    def spend(self, amounts: Amounts, wall: float) -> list[Alert]:
        """Count what was used; the thresholds that were reached."""
        for window in self.windows.values():
            window.roll(wall)
            for resource, amount in amounts.items():
                window.used[resource] = window.used.get(resource, 0) + amount
        return [
            alert for limit in self.limits if amounts.get(limit.resource) and (alert := self._told(limit)) is not None
        ]

    def _wait(self, limit: Limit, used: int, more: int, wall: float) -> float | None:
        if more > limit.amount:
            return None
        if used + more <= limit.amount:
            return _SOON_S  # only what others hold reserved is in the way
        return None if limit.period == "life" else max(_SOON_S, self.windows[limit.period].end - wall)

    def _told(self, limit: Limit) -> Alert | None:
        window = self.windows[limit.period]
        used = window.used.get(limit.resource, 0)
        before = window.told.get(limit, 0.0)
        reached = max((t for t in limit.thresholds if used >= t * limit.amount), default=0.0)
        if reached <= before:
            return None
        window.told[limit] = reached
        return Alert(self.path, limit, reached, used)

"""Budgets on the wire: limits, how far they are used, and the text that people write limits in.

Amounts are whole numbers: tokens, calls, tool calls, runs and seconds as such, money in nano-units
(1e-9) of the installation's currency, so that sums are exact.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal, cast
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient
from llmagentos.core.errors import InvalidInput

Resource = Literal["tokens", "money", "calls", "tool_calls", "seconds", "runs"]
Period = Literal["hour", "day", "month", "life"]
OnLimit = Literal["pause", "refuse"]
"""What a hard limit does to a run: it waits until there is room again, or fails."""
Share = Annotated[float, Meta(gt=0, le=10)]
MAX_AMOUNT = 2**53
"""More than that is not exact in JSON as others read it."""

MONEY = 1_000_000_000
THRESHOLDS = (0.5, 0.8, 1.0)
SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,99}"
MAX_DEPTH = 8

_PATH = re.compile(rf"{SEGMENT}(/{SEGMENT}){{0,{MAX_DEPTH - 1}}}")
_TEXT = re.compile(r"(\d+(?:\.\d+)?) ?([kKMGsmhd]?)(?: ?(?:/|per ) ?(hour|day|month|life))?( soft)?")
_COUNTS = {"": 1, "k": 1000, "K": 1000, "M": 10**6, "G": 10**9}
_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """At most `amount` in each calendar `period` (UTC). A soft one only warns; `runs` are those under way."""

    resource: Resource
    amount: Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
    period: Period = "life"
    hard: bool = True
    thresholds: Annotated[list[Share], Meta(max_length=10)] = msgspec.field(default_factory=lambda: [*THRESHOLDS])
    """Shares of the amount at which an alert is raised, once a period each."""


class BudgetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What people set at one node of the tree."""

    limits: Annotated[list[Limit], Meta(max_length=50)]
    on_limit: OnLimit = "pause"


class LimitUsage(msgspec.Struct, frozen=True):
    """How far a limit is used. `resets_at` is seconds since the epoch (UTC), None for life."""

    resource: Resource
    amount: int
    period: Period
    hard: bool
    thresholds: list[float]
    used: int
    reserved: int
    resets_at: float | None


class Budget(msgspec.Struct, frozen=True):
    """One node: its limits, what its subtree has used in its life and what it holds reserved now."""

    path: str
    limits: list[LimitUsage]
    on_limit: OnLimit
    spent: dict[str, int]
    reserved: dict[str, int]
    configured: bool = False
    """Set in `llmagentos.yaml`, so it is changed there."""
    set_by: str | None = None
    updated: float | None = None


class BudgetWait(msgspec.Struct, frozen=True):
    """A run that waits because the budget at `path` allows no more `resource`."""

    run: str
    path: str
    resource: Resource
    period: Period
    since: float
    resets_at: float | None
    """None: only a higher limit helps."""


class Budgets(msgspec.Struct, frozen=True):
    """The tree or a part of it, ancestors first."""

    currency: str
    budgets: list[Budget]
    waiting: list[BudgetWait] = []


class BudgetAlert(msgspec.Struct, frozen=True):
    """A limit's use has reached `threshold`; published on the topic `budgets`."""

    path: str
    resource: Resource
    period: Period
    amount: int
    hard: bool
    used: int
    threshold: float
    at: float


def segments(path: str) -> tuple[str, ...]:
    """The path's parts. Raises `InvalidInput` for one that is none."""
    if not _PATH.fullmatch(path):
        raise InvalidInput(
            f"{path[:200]!r} is no path of a budget",
            hint=f"names separated by /, at most {MAX_DEPTH}: org, org/TEAM, org/TEAM/AGENT, org/TEAM/AGENT/RUN",
        )
    return tuple(path.split("/"))


def parse_limit(resource: Resource, text: str, *, hard: bool = True, thresholds: list[float] | None = None) -> Limit:
    """The limit that `100k/day`, `5.50/month`, `2h/day`, `10` or `80k/day soft` says. Raises `InvalidInput`."""
    found = _TEXT.fullmatch(text.strip())
    units = _TIMES if resource == "seconds" else _COUNTS
    if found is None or found[2] not in units or (resource == "money" and found[2] in ("M", "G")):
        raise InvalidInput(
            f"{resource}: {text!r} is no limit", hint="e.g. 100k/day, 5.50/month, 2h/day, 10; periods: hour, day, month"
        )
    amount = Decimal(found[1]) * units[found[2]] * (MONEY if resource == "money" else 1)
    if amount != int(amount) or amount > MAX_AMOUNT:
        raise InvalidInput(f"{resource}: {text!r} is not a whole number up to {MAX_AMOUNT}")
    period = cast("Period", found[3] or "life")
    if resource == "runs" and period != "life":
        raise InvalidInput(f"runs: {text!r} has a period, but runs count while they are under way", hint=found[1])
    more = {} if thresholds is None else {"thresholds": thresholds}
    return Limit(resource, int(amount), period, hard and not found[4], **more)


# The client's calls -------------------------------------------------------------------------------


async def listing(client: ApiClient, path: str = "") -> Budgets:
    """The tree, or the part at and below `path`. Raises `NotFound` for a node that is not there."""
    return await client.get(f"/api/v1/budgets{f'/{quote(path)}' if path else ''}", Budgets)


async def put(client: ApiClient, path: str, spec: BudgetSpec) -> Budget:
    """Set the limits of a node, in place of those that it had. Raises `Conflict` for one set in the configuration."""
    return await client.put(f"/api/v1/budgets/{quote(path)}", spec, Budget)


async def delete(client: ApiClient, path: str) -> None:
    """Take away all limits of a node. Raises `NotFound` when it has none."""
    await client.delete(f"/api/v1/budgets/{quote(path)}")

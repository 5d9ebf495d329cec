"""What budgets know of calls and runs: what a call may take, what it holds, which of them an earlier process made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, cast

from msgspec.structs import replace

from llmagentos.api.llm import CallInfo, Usage
from llmagentos.core import metrics
from llmagentos.core.errors import Conflict
from llmagentos.kernel.budgets import Path
from llmagentos.kernel.limits import Amounts
from llmagentos.storage.budgets import CallRecord

OPEN, SETTLED = "open", "settled"
ABOVE_RUNS = 3
"""Levels of the tree above runs."""


class Measured(Protocol):
    """What is known of a call at its end."""

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def spent(self) -> Usage: ...
    def record(self, error: BaseException | None) -> CallInfo: ...
    def charged(self, error: BaseException | None, budget: str, tokens: int, money: int) -> CallInfo: ...


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a run, which its next host makes again when this one is lost. `fence` tells hosts apart."""

    name: str
    fence: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call stands in the tree, and which step of its run it is."""

    path: Path
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call may take. `most_out` is what its caller allows; None when it does not say."""

    tokens_in: int
    most_out: int | None = None
    generates: bool = True


@dataclass(slots=True)
class Hold:
    """What a call holds. `most_out` bounds its answer; `started` is set once an engine may work on it."""

    id: str
    path: Path
    run: str | None
    step: Step | None
    most_out: int | None
    started: bool = False
    succeeded: bool = False
    earlier: CallRecord | None = None
    """The same call as an earlier process made it, still open."""
    about: CallInfo | None = None
    """What is listed of it should nobody live to see its end."""

    def record(self, now: float, amounts: Amounts, state: str) -> CallRecord:
        """What storage keeps of it."""
        held = cast("dict[str, int]", dict(amounts))
        step = None if self.step is None else self.step.name
        about = self.about if state == OPEN else None
        return CallRecord(self.id, "/".join(self.path), self.run, step, held, state, now, about)


@dataclass(slots=True)
class KnownRun:
    path: Path
    inflight: set[str] = field(default_factory=set)
    earlier: list[CallRecord] = field(default_factory=list)
    """Calls that the hosts before made, which a replay makes again, oldest first."""
    done: list[CallRecord] = field(default_factory=list)
    """Calls that the host now made."""
    fence: int = 0
    ended: bool = False


class Unseen:
    """Calls of processes that died before they saw their end, and what is listed of them."""

    def __init__(self) -> None:
        self._about: dict[str, CallInfo] = {}

    def found(self, calls: Iterable[CallRecord]) -> None:
        """Storage has these."""
        self._about |= {call.id: call.about for call in calls if call.state == OPEN and call.about is not None}

    def seen(self, call_id: str) -> None:
        """It was made again, and ended."""
        self._about.pop(call_id, None)

    def cut_off(self, call_id: str, path: Path, amounts: Amounts) -> list[CallInfo]:
        """Nobody makes it again: all that it held counts."""
        if (about := self._about.pop(call_id, None)) is None:
            return []
        tokens, money = amounts.get("tokens", 0), amounts.get("money", 0)
        told = "the server ended during the call: what it held is counted"
        return [replace(about, status="cut_off", error=told, budget="/".join(path), charged=tokens, money=money)]


class PausedByBudget(Conflict):
    """A limit made the run pause: the call is made again when it is resumed."""

    code = "paused_by_budget"


def run_of(path: Path) -> str | None:
    """The run whose own node it is: organisations, teams, agents and callers stand above runs."""
    return path[-1] if len(path) > ABOVE_RUNS else None


def whole(amounts: Amounts) -> Amounts:
    """Without what is zero."""
    return {resource: amount for resource, amount in amounts.items() if amount}


def count(used: Amounts) -> None:
    """Count what was spent in the metrics."""
    for resource, amount in used.items():
        metrics.BUDGET_SPENT.labels(resource).inc(amount)

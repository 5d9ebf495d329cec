"""Budgets as a tree (organisation, team, agent, run, sub-run): what is spent below counts above.

What a call may take is reserved in every ancestor before it starts and settled afterwards to what it
took, once per call id: a call that is replayed after a crash finds its reservation, or that it was
settled. Hard limits hold as long as no call takes more than it reserved (the gateway caps its output).
What may have been spent counts as spent: a run that ends settles its open reservations in full.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, NotFound
from llmagentos.kernel.limits import PERIODS, Account, Alert, Amounts, BudgetExceeded, Limit, Refusal, Resource

Path = tuple[str, ...]

MAX_SETTLED = 200_000


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is held for a call. `settled` says that the call is over already and nothing is held."""

    call_id: str
    path: Path
    amounts: Amounts
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """How far a limit is used; `resets_at` is wall-clock time, None for life."""

    path: Path
    limit: Limit
    used: int
    reserved: int
    resets_at: float | None


class BudgetTree:
    """The tree. Nodes come into being when something is set or reserved in them.

    Ids of settled calls are remembered until their run is closed, the oldest beyond `max_settled` less long.
    """

    def __init__(self, clock: Clock, *, max_settled: int = MAX_SETTLED) -> None:
        self._clock = clock
        self._accounts: dict[Path, Account] = {}
        self._open: dict[str, Reservation] = {}
        self._settled: OrderedDict[str, Path] = OrderedDict()
        self._calls: dict[Path, set[str]] = {}
        self._children: dict[Path, set[Path]] = {}
        self._max_settled = max_settled

    def set_limits(self, path: Path, limits: Iterable[Limit]) -> None:
        """Replace the limits of a node. Lower ones than what is used only stop what is new."""
        self._account(path).limits = tuple(limits)

    def check(self, path: Path, wanted: Amounts) -> Refusal | None:
        """What would refuse `wanted` at `path`, from the root down; None when it fits."""
        wall = self._clock.time()
        refusals = (account.refuses(wanted, wall) for account in self._known(path))
        return next((refusal for refusal in refusals if refusal is not None), None)

    def reserve(self, call_id: str, path: Path, amounts: Amounts) -> Reservation:
        """Hold `amounts` for a call in the node and all its ancestors, or in none.

        A call that holds something already keeps exactly that. Raises `BudgetExceeded`, or `Conflict` when
        the id belongs to a call elsewhere in the tree.
        """
        held = self._open.get(call_id)
        if held is not None:
            return _same_place(held, path)
        if call_id in self._settled:
            return _same_place(Reservation(call_id, self._settled[call_id], {}, settled=True), path)
        if (refusal := self.check(path, amounts)) is not None:
            raise BudgetExceeded.of(refusal)
        return self.reopen(call_id, path, amounts)

    def reopen(self, call_id: str, path: Path, amounts: Amounts) -> Reservation:
        """Hold what storage says was held, without asking the limits: it was granted before."""
        reservation = self._open[call_id] = Reservation(call_id, path, dict(amounts))
        self._calls.setdefault(path, set()).add(call_id)
        for account in self._ensured(path):
            account.hold(reservation.amounts, 1)
        return reservation

    def extend(self, call_id: str, more: Amounts) -> Reservation:
        """Hold more for a call under way. Raises `BudgetExceeded`, or `NotFound` when it holds nothing."""
        held = self._held(call_id)
        if (refusal := self.check(held.path, more)) is not None:
            raise BudgetExceeded.of(refusal)
        amounts = {r: held.amounts.get(r, 0) + more.get(r, 0) for r in {*held.amounts, *more}}
        for account in self._ensured(held.path):
            account.hold(more, 1)
        self._open[call_id] = Reservation(call_id, held.path, amounts)
        return self._open[call_id]

    def settle(self, call_id: str, used: Amounts) -> list[Alert]:
        """The call is over and took `used`; a second time nothing happens. Raises `NotFound` for an unknown call."""
        if call_id in self._settled:
            return []
        held = self._held(call_id)
        self._let_go(held)
        return self._spend(call_id, held.path, used)

    def charge(self, call_id: str, path: Path, used: Amounts) -> list[Alert]:
        """Count what was used without a reservation, once per call id; no limit is asked."""
        if call_id in self._settled:
            return []
        if call_id in self._open:
            return self.settle(call_id, used)
        return self._spend(call_id, path, used)

    def release(self, call_id: str) -> bool:
        """The call never started: nothing of what it held was used. Whether it held something."""
        held = self._open.get(call_id)
        if held is not None:
            self._let_go(held)
            self._calls[held.path].discard(call_id)
        return held is not None

    def close(self, path: Path) -> list[Alert]:
        """A run has ended: settle in full what it still holds, forget it and all below. Ancestors keep the sums.

        A place among `runs` is not spent but given back.
        """
        alerts = [alert for child in sorted(self._children.get(path, ())) for alert in self.close(child)]
        for call_id in sorted(self._calls.get(path, ())):
            if (held := self._open.get(call_id)) is not None:
                alerts += self.settle(call_id, {r: n for r, n in held.amounts.items() if r != "runs"})
            self._settled.pop(call_id, None)
        self._calls.pop(path, None)
        self._accounts.pop(path, None)
        self._children.pop(path, None)
        self._children.get(path[:-1], set()).discard(path)
        return alerts

    def usage(self, path: Path = ()) -> Iterator[Usage]:
        """Every limit at `path` and below, ancestors first."""
        wall = self._clock.time()
        for known in sorted(self._accounts):
            account = self._accounts[known]
            for limit in account.limits if known[: len(path)] == path else ():
                used = account.used(limit.resource, limit.period, wall)
                reserved = account.reserved.get(limit.resource, 0)
                end = account.windows[limit.period].end
                yield Usage(known, limit, used, reserved, None if limit.period == "life" else end)

    def headroom(self, path: Path, resource: Resource) -> int | None:
        """How much more of `resource` all hard limits at `path` and above allow; None when none limits it."""
        wall = self._clock.time()
        found = [left for account in self._known(path) if (left := account.headroom(resource, wall)) is not None]
        return min(found, default=None)

    def limits(self, path: Path) -> tuple[Limit, ...]:
        """The limits of the node itself."""
        account = self._accounts.get(path)
        return () if account is None else account.limits

    def holds(self, call_id: str) -> bool:
        """Whether the call holds something."""
        return call_id in self._open

    def open(self, path: Path) -> list[Reservation]:
        """What calls at exactly `path` hold."""
        return [held for call_id in sorted(self._calls.get(path, ())) if (held := self._open.get(call_id)) is not None]

    def paths(self, path: Path = ()) -> list[Path]:
        """Every node at `path` and below, ancestors first."""
        return sorted(known for known in self._accounts if known[: len(path)] == path)

    def forget(self, path: Path) -> bool:
        """Drop a node without limits of its own, children and anything held; whether it was dropped."""
        account = self._accounts.get(path)
        if account is None or account.limits or account.reserved or self._children.get(path):
            return False
        self.close(path)
        return True

    def spent(self, path: Path) -> Amounts:
        """What the node's subtree has used in its life."""
        account = self._accounts.get(path)
        return {} if account is None else dict(account.windows["life"].used)

    def held(self, path: Path) -> Amounts:
        """What the node's subtree holds reserved."""
        account = self._accounts.get(path)
        return {} if account is None else dict(account.reserved)

    def stored(self, path: Path) -> dict[str, Any]:
        """One node's part of the snapshot."""
        return _stored(self._account(path))

    def snapshot(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {
            "accounts": [_stored(account) for account in self._accounts.values()],
            "open": [[held.call_id, list(held.path), dict(held.amounts)] for held in self._open.values()],
            "settled": [[call_id, list(path)] for call_id, path in self._settled.items()],
        }

    def load(self, snapshot: Mapping[str, Any]) -> None:
        """Take over what `snapshot` says, in an empty tree; accounts without `limits` keep those that were set."""
        for stored in snapshot["accounts"]:
            _restore(self._account(tuple(stored["path"])), stored)
        for call_id, path, amounts in snapshot["open"]:
            self.reopen(call_id, tuple(path), amounts)
        for call_id, path in snapshot["settled"]:
            self._remember(call_id, tuple(path))

    def _held(self, call_id: str) -> Reservation:
        held = self._open.get(call_id)
        if held is None:
            raise NotFound(f"the call {call_id!r} holds no reservation", hint="reserve before the call starts")
        return held

    def _let_go(self, held: Reservation) -> None:
        del self._open[held.call_id]
        for account in self._ensured(held.path):
            account.hold(held.amounts, -1)

    def _spend(self, call_id: str, path: Path, used: Amounts) -> list[Alert]:
        wall = self._clock.time()
        self._remember(call_id, path)
        return [alert for account in self._ensured(path) for alert in account.spend(used, wall)]

    def _remember(self, call_id: str, path: Path) -> None:
        self._settled[call_id] = path
        self._calls.setdefault(path, set()).add(call_id)
        if len(self._settled) > self._max_settled:
            forgotten, where = self._settled.popitem(last=False)
            self._calls[where].discard(forgotten)

    def _account(self, path: Path) -> Account:
        account = self._accounts.get(path)
        if account is None:
            account = self._accounts[path] = Account(path)
            if len(path) > 1:
                self._account(path[:-1])
                self._children.setdefault(path[:-1], set()).add(path)
        return account

    def _ensured(self, path: Path) -> list[Account]:
        return [self._account(path[:depth]) for depth in range(1, len(path) + 1)]

    def _known(self, path: Path) -> Iterator[Account]:
        for depth in range(1, len(path) + 1):
            if (account := self._accounts.get(path[:depth])) is not None:
                yield account


def _same_place(held: Reservation, path: Path) -> Reservation:
    if held.path != path:
        raise Conflict(f"the call {held.call_id!r} belongs to {'/'.join(held.path)}, not to {'/'.join(path)}")
    return held


def _stored(account: Account) -> dict[str, Any]:
    windows = {
        period: {
            "end": window.end if period != "life" else None,
            "used": dict(window.used),
            "told": [[asdict(limit), threshold] for limit, threshold in window.told.items()],
        }
        for period, window in account.windows.items()
        if window.used
    }
    return {"path": list(account.path), "limits": [asdict(limit) for limit in account.limits], "windows": windows}


def _restore(account: Account, stored: Mapping[str, Any]) -> None:
    if "limits" in stored:
        account.limits = tuple(_limit(limit) for limit in stored["limits"])
    for period in PERIODS:
        kept = stored["windows"].get(period)
        if kept is not None:
            window = account.windows[period]
            window.end = float("inf") if kept["end"] is None else kept["end"]
            window.used = dict(kept["used"])
            window.told = {_limit(limit): threshold for limit, threshold in kept["told"]}


def _limit(stored: Mapping[str, Any]) -> Limit:
    return Limit(**{**stored, "thresholds": tuple(stored["thresholds"])})

"""Limits that people set, in the configuration or through the API, and how far each is used."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable
from decimal import Decimal

from llmagentos.api.budgets import (
    Budget,
    Budgets,
    BudgetSpec,
    BudgetWait,
    Limit,
    LimitUsage,
    OnLimit,
    Resource,
    parse_limit,
    segments,
)
from llmagentos.core.config import schema
from llmagentos.core.errors import ConfigError, Conflict, InvalidInput, NotFound, nearest
from llmagentos.kernel import limits as kernel
from llmagentos.kernel.budgets import BudgetTree, Path, Usage
from llmagentos.kernel.prices import Price, PriceTable
from llmagentos.llm.budget_calls import ABOVE_RUNS, run_of
from llmagentos.storage.budgets import BudgetRecord, BudgetRecords

CONFIGURED = "llmagentos.yaml"
_MOST = 2000

_FIELDS: tuple[tuple[str, Resource], ...] = (
    ("tokens", "tokens"),
    ("money", "money"),
    ("calls", "calls"),
    ("tool_calls", "tool_calls"),
    ("time", "seconds"),
    ("runs", "runs"),
)


class BudgetLimits:
    """Keeps the limits in `tree`. Those in `configured` (by path) are changed in the configuration only."""

    def __init__(
        self,
        tree: BudgetTree,
        records: BudgetRecords,
        settings: schema.Budgets,
        *,
        waiting: Callable[[], list[BudgetWait]],
    ) -> None:
        self._tree = tree
        self._records = records
        self._settings = settings
        self._configured = specs(settings)
        self._set: dict[Path, BudgetRecord] = {}
        self._waiting = waiting

    async def begin(self, live: Collection[str]) -> None:
        """Put all limits in force; where both set a node, the configuration's are. Those of runs go with the run."""
        for record in await self._records.all():
            path = tuple(record.path.split("/"))
            if (run := run_of(path)) is None or run in live:
                self._set[path] = record
            else:
                await self._records.delete(record.path)
        for path, spec in self._configured.items():
            self._set[path] = BudgetRecord("/".join(path), spec, 0.0, CONFIGURED)
        for path, record in self._set.items():
            self._tree.set_limits(path, map(_in_kernel, record.spec.limits))

    async def prune(self) -> int:
        """Forget the limits of runs that have ended; how many."""
        known = set(self._tree.paths())
        gone = [path for path in self._set if run_of(path) is not None and path not in known]
        for path in gone:
            await self._records.delete("/".join(path))
            del self._set[path]
        return len(gone)

    def on_limit(self, path: Path) -> OnLimit:
        """What a limit of this node does to a run."""
        record = self._set.get(path)
        return record.spec.on_limit if record is not None else "pause"

    async def put(self, path: str, spec: BudgetSpec, *, by: str) -> Budget:
        """Replace the limits of a node. Raises `InvalidInput`, or `Conflict` for one that the configuration sets."""
        where = self._changeable(path)
        twice = [limit for i, limit in enumerate(spec.limits) if _key(limit) in map(_key, spec.limits[:i])]
        if twice:
            raise InvalidInput(f"{twice[0].resource} per {twice[0].period} is limited twice")
        self._set[where] = await self._records.put(path, spec, by=by)
        self._tree.set_limits(where, map(_in_kernel, spec.limits))
        return self._budget(where)

    async def delete(self, path: str) -> None:
        """Take all limits of a node away; what was spent stays. Raises `NotFound` or `Conflict`."""
        where = self._changeable(path)
        if where not in self._set:
            close = nearest(path, ["/".join(known) for known in self._set])
            hint = f"did you mean {close!r}?" if close else "`llmctl budget show`"
            raise NotFound(f"{path!r} has no limits", hint=hint)
        await self._records.delete(path)
        del self._set[where]
        self._tree.set_limits(where, ())

    def listing(self, path: str = "") -> Budgets:
        """The nodes at and below `path`. Raises `NotFound` when there is none."""
        root = segments(path) if path else ()
        known = self._tree.paths(root)
        if not known and root:
            close = nearest(path, ["/".join(other) for other in self._tree.paths()])
            raise NotFound(
                f"there is no budget {path!r}",
                hint=f"did you mean {close!r}?" if close else "`llmctl budget show` lists them",
            )
        depth = max(ABOVE_RUNS, len(root) + 1)  # runs are shown when asked for, or with limits of their own
        shown = [where for where in known if len(where) <= depth or self._tree.limits(where)]
        waiting = [wait for wait in self._waiting() if not path or f"{wait.path}/".startswith(f"{path}/")]
        return Budgets(self._settings.currency, [self._budget(where) for where in shown[:_MOST]], waiting)

    def _changeable(self, path: str) -> Path:
        where = segments(path)
        root = self._settings.organization
        if where[0] != root:
            raise InvalidInput(f"{path!r} is not below {root!r}", hint=f"{root}, {root}/TEAM, {root}/TEAM/AGENT")
        if where in self._configured:
            raise Conflict(f"the limits of {path!r} stand in {CONFIGURED}", hint="change them there, and restart")
        return where

    def _budget(self, path: Path) -> Budget:
        record = self._set.get(path)
        own = [_usage(usage) for usage in self._tree.usage(path) if usage.path == path]
        own.sort(key=lambda limit: (kernel.RESOURCES.index(limit.resource), kernel.PERIODS.index(limit.period)))
        return Budget(
            "/".join(path),
            own,
            self.on_limit(path),
            _plain(self._tree.spent(path)),
            _plain(self._tree.held(path)),
            path in self._configured,
            record.updated_by if record is not None else None,
            (record.updated or None) if record is not None else None,
        )


def specs(settings: schema.Budgets) -> dict[Path, BudgetSpec]:
    """The limits in the configuration. Raises `ConfigError`."""
    found = {}
    for path, budget in settings.limits.items():
        try:
            found[segments(path)] = BudgetSpec(list(_limits(budget)), budget.on_limit)
        except InvalidInput as error:
            raise ConfigError(f"budgets.limits.{path}: {error.message}", hint=error.hint) from None
    return found


def _limits(budget: schema.Budget) -> Iterable[Limit]:
    thresholds = [percent / 100 for percent in budget.warn_at]
    for name, resource in _FIELDS:
        amounts = getattr(budget, name)
        for text in amounts if isinstance(amounts, list) else [amounts]:
            yield parse_limit(resource, str(text), thresholds=thresholds)


def prices(settings: schema.Budgets) -> PriceTable:
    """The prices in the configuration. Raises `ConfigError` for a day that the calendar does not have."""
    found = []
    for model, known in settings.prices.items():
        for price in known:
            try:
                since = datetime.datetime.fromisoformat(price.since).replace(tzinfo=datetime.UTC).timestamp()
            except ValueError:
                raise ConfigError(f"budgets.prices.{model}: {price.since!r} is no day") from None
            found.append(Price(model, Decimal(str(price.input)), Decimal(str(price.output)), valid_from=since))
    return PriceTable(found)


def _key(limit: Limit) -> tuple[str, str, bool]:
    return limit.resource, limit.period, limit.hard


def _in_kernel(limit: Limit) -> kernel.Limit:
    return kernel.Limit(limit.resource, limit.amount, limit.period, limit.hard, tuple(limit.thresholds))


def _plain(amounts: kernel.Amounts) -> dict[str, int]:
    return {str(resource): amount for resource, amount in amounts.items()}


def _usage(found: Usage) -> LimitUsage:
    limit = found.limit
    used = found.reserved if limit.resource == "runs" else found.used
    reserved = 0 if limit.resource == "runs" else found.reserved
    return LimitUsage(
        limit.resource, limit.amount, limit.period, limit.hard, [*limit.thresholds], used, reserved, found.resets_at
    )

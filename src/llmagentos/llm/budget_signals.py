"""What budgets tell: alerts at thresholds, refusals, and which runs wait for room."""

from __future__ import annotations

from typing import Any

from llmagentos.api.budgets import BudgetAlert, BudgetWait
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.kernel.budgets import Path
from llmagentos.kernel.limits import Alert, Amounts, Refusal

_log = log.get(__name__)


class Waits:
    """Runs that were refused, with what they wanted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[BudgetWait, Amounts]] = {}

    def refused(self, refusal: Refusal, run: str | None, wanted: Amounts) -> None:
        """A limit did not allow it; a run waits from its first refusal on."""
        limit, now, before = refusal.limit, self._clock.time(), self._known.get(run or "")
        path = "/".join(refusal.path)
        if before is None:
            metrics.BUDGET_REFUSALS.labels(limit.resource).inc()
            _log.info("budget used up", budget=path, resource=limit.resource, amount=limit.amount, used=refusal.used)
        if run is not None:
            resets = None if refusal.retry_after is None else now + refusal.retry_after
            since = now if before is None else before[0].since
            self._put(run, BudgetWait(run, path, limit.resource, limit.period, since, resets), wanted)

    def unknown(self, run: str, path: Path) -> None:
        """A run that already waited before this process began: anything at all may be what it wants."""
        wait = BudgetWait(run, "/".join(path), "tokens", "life", self._clock.time(), None)
        self._put(run, wait, {"tokens": 1, "money": 1, "calls": 1, "tool_calls": 1, "seconds": 1})

    def _put(self, run: str, wait: BudgetWait, wanted: Amounts) -> None:
        self._known[run] = (wait, wanted)
        metrics.BUDGET_WAITING.set(len(self._known))

    def over(self, run: str) -> None:
        """The run does not wait any more."""
        self._known.pop(run, None)
        metrics.BUDGET_WAITING.set(len(self._known))

    def wanted(self, run: str) -> Amounts | None:
        """What the run was refused; None when it does not wait."""
        known = self._known.get(run)
        return None if known is None else known[1]

    def listing(self) -> list[BudgetWait]:
        """Those that wait, the longest first."""
        return sorted((wait for wait, _ in self._known.values()), key=lambda wait: wait.since)


def told(alert: Alert, now: float) -> BudgetAlert:
    """The alert for those outside, logged and counted."""
    limit, path = alert.limit, "/".join(alert.path)
    kind = "hard" if limit.hard else "soft"
    metrics.BUDGET_ALERTS.labels(limit.resource, kind).inc()
    say = _log.warning if alert.threshold >= 1 or not limit.hard else _log.info
    say(
        "budget threshold reached",
        budget=path,
        threshold=alert.threshold,
        kind=kind,
        resource=limit.resource,
        period=limit.period,
        amount=limit.amount,
        used=alert.used,
    )
    return BudgetAlert(path, limit.resource, limit.period, limit.amount, limit.hard, alert.used, alert.threshold, now)


def facts(refusal: Refusal) -> dict[str, Any]:
    """A refusal as members of a problem document."""
    limit = refusal.limit
    return {
        "budget": "/".join(refusal.path),
        "resource": limit.resource,
        "period": limit.period,
        "amount": limit.amount,
        "used": refusal.used,
    }

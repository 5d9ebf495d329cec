"""Budgets: the tree with bars, and the runs that wait for room."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from llmagentos.api.budgets import MONEY, Budget, Budgets, BudgetWait, LimitUsage
from llmagentos.server.console import words
from llmagentos.server.console.words import Translate

_SOON = 0.8


def page(found: Budgets, t: Translate) -> dict[str, Any]:
    """The tree as the page shows it."""
    return {
        "budgets": [_budget(node, found.currency, t) for node in found.budgets],
        "waiting": list(waits(found.waiting, t)),
        "limited": any(node.limits for node in found.budgets),
    }


def _budget(node: Budget, currency: str, t: Translate) -> dict[str, Any]:
    above, _, name = node.path.rpartition("/")
    hard = any(limit.hard for limit in node.limits)
    spent = [_amount(resource, value, currency, t) for resource, value in node.spent.items()]
    return {
        "path": node.path,
        "above": f"{above}/" if above else "",
        "name": name,
        "depth": min(5, node.path.count("/")),
        "spent": spent,
        "limits": [_limit(limit, currency, t) for limit in node.limits],
        "on_limit": (t("runs wait") if node.on_limit == "pause" else t("runs fail")) if hard else "",
        "configured": node.configured,
        "set_by": node.set_by,
    }


def _limit(limit: LimitUsage, currency: str, t: Translate) -> dict[str, Any]:
    share = limit.used / limit.amount if limit.amount else 1.0
    periods = {"hour": t("per hour"), "day": t("per day"), "month": t("per month"), "life": ""}
    return {
        "used": _number(limit.resource, limit.used),
        "most": _amount(limit.resource, limit.amount, currency, t),
        "period": periods[limit.period],
        "held": _amount(limit.resource, limit.reserved, currency, t) if limit.reserved else "",
        "share": f"{share:.0%}",
        "value": min(limit.used, limit.amount) if limit.amount else 1,
        "max": limit.amount or 1,
        "look": "bad" if share >= 1 else "warn" if share >= _SOON else "ok",
        "soft": not limit.hard,
        "resets": limit.resets_at,
    }


def waits(waiting: Iterable[BudgetWait], t: Translate) -> Iterable[dict[str, Any]]:
    """Runs that wait for room."""
    for wait in waiting:
        yield {
            "run": wait.run,
            "path": wait.path,
            "resource": _names(t)[wait.resource],
            "since": wait.since,
            "resets": wait.resets_at,
        }


def _amount(resource: str, value: int, currency: str, t: Translate) -> str:
    return f"{_number(resource, value)} {currency if resource == 'money' else _names(t)[resource]}"


def _number(resource: str, value: int) -> str:
    if resource == "money":
        return f"{Decimal(value) / MONEY:,.2f}"
    return words.duration(value) if resource == "seconds" and value else words.number(value)


def _names(t: Translate) -> dict[str, str]:
    return {
        "tokens": t("tokens"),
        "money": t("money"),
        "calls": t("calls"),
        "tool_calls": t("tool calls"),
        "seconds": t("of work"),
        "runs": t("runs at once"),
    }

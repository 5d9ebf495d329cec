"""The words and number formats of the console: states, navigation, durations, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec


class Translate(Protocol):
    """English text to the language of the request."""

    def __call__(self, text: str, **values: Any) -> str: ...


class State(NamedTuple):
    """How a state looks (the dot's class) and what it is called."""

    look: str
    label: str


class Item(NamedTuple):
    """An entry of the navigation."""

    name: str
    href: str
    label: str


def navigation(t: Translate) -> list[Item]:
    """The sections of the console."""
    return [
        Item("overview", "/", t("Overview")),
        Item("runs", "/runs", t("Runs")),
        Item("approvals", "/approvals", t("Approvals")),
        Item("agents", "/agents", t("Agents")),
        Item("sessions", "/sessions", t("Sessions")),
        Item("services", "/services", t("Services")),
        Item("models", "/models", t("Models")),
        Item("budgets", "/budgets", t("Budgets")),
        Item("jobs", "/jobs", t("Jobs")),
        Item("nodes", "/nodes", t("Nodes")),
    ]


def states(t: Translate) -> Mapping[str, State]:
    """Every state that a run, job, task, node, instance or engine can be in."""
    return {
        "queued": State("wait", t("queued")),
        "waiting": State("wait", t("waiting")),
        "held": State("wait", t("held")),
        "gating": State("busy", t("health gate")),
        "pausing": State("wait", t("pause")),
        "idle": State("", t("idle")),
        "passed": State("ok", t("passed")),
        "active": State("ok", t("active")),
        "pending": State("wait", t("pending")),
        "running": State("busy", t("running")),
        "paused": State("warn", t("paused")),
        "waiting_approval": State("warn", t("waits for approval")),
        "succeeded": State("ok", t("succeeded")),
        "failed": State("bad", t("failed")),
        "killed": State("warn", t("killed")),
        "cancelled": State("warn", t("cancelled")),
        "cut_off": State("warn", t("cut off")),
        "cancelling": State("busy", t("being cancelled")),
        "interrupted": State("bad", t("interrupted")),
        "unreachable": State("bad", t("unreachable")),
        "restarting": State("warn", t("restarting")),
        "ok": State("ok", t("ok")),
        "changed": State("warn", t("changed")),
        "skipped": State("", t("skipped")),
        "ignored": State("", t("ignored")),
        "rescued": State("warn", t("rescued")),
        "ready": State("ok", t("ready")),
        "away": State("bad", t("away")),
        "revoked": State("bad", t("revoked")),
        "cordoned": State("warn", t("cordoned")),
        "drained": State("", t("drained")),
        "up": State("ok", t("up")),
        "draining": State("warn", t("draining")),
        "down": State("bad", t("down")),
        "starting": State("busy", t("starting")),
        "loading": State("busy", t("loading")),
        "unloaded": State("", t("unloaded")),
        "stopped": State("", t("stopped")),
        "info": State("", t("note")),
        "warning": State("warn", t("warning")),
        "deprecated": State("warn", t("deprecated")),
        "error": State("bad", t("error")),
    }


def waits(t: Translate) -> Mapping[str, str]:
    """Why a call waits (`kernel.calls.Reason`)."""
    return {
        "slots": t("waits for a slot"),
        "loading": t("the model is loading"),
        "rate": t("waits for the limit per minute"),
        "backoff": t("the endpoint asked to wait"),
        "held": t("held"),
        "preempted": t("gave its slot to a more urgent call"),
    }


def kinds(t: Translate) -> Mapping[str, str]:
    """What identities are called."""
    return {"admin": t("administrator"), "operator": t("operator"), "viewer": t("viewer")}


def duration(seconds: float) -> str:
    """A length of time as people read it: `240ms`, `3.1s`, `2m 5s`, `1h 12m`."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"


def size(count: float) -> str:
    """A number of bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def money(nano: int) -> str:
    """An amount in billionths of the currency; empty for nothing."""
    return f"{nano / 1e9:,.4f}" if nano else ""


def number(value: float) -> str:
    """A count with its digits in groups of three."""
    return f"{value:,.0f}"


def compact(value: Any) -> str:
    """A value as JSON on one line."""
    return msgspec.json.encode(value).decode()


def pretty(value: Any) -> str:
    """A value as indented JSON, for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()

"""Models, and the calls that were made to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmagentos.api.llm import CallInfo, ModelInfo, ModelQueue, ReplicaInfo
from llmagentos.server.console.spoken import spoken
from llmagentos.server.console.words import Translate, duration, size


def rows(models: Iterable[ModelInfo], t: Translate) -> list[dict[str, Any]]:
    """Models as the table shows them."""
    uses = {"chat": t("chat"), "embedding": t("embedding")}
    stays = {"always": t("always"), "on_demand": t("on demand")}
    return [
        {
            "name": model.name,
            "aliases": model.aliases,
            "state": model.state,
            "engine": model.engine,
            "use": uses.get(model.use, model.use),
            "running": f"{model.running} / {model.slots}",
            "waiting": f"{model.waiting} / {model.queue}",
            "memory": model.memory_bytes,
            "device_memory": model.device_memory_bytes,
            "tokens_per_s": f"{model.tokens_per_s:.1f}",
            "keep_alive": stays.get(model.keep_alive or "", model.keep_alive),
            "act": _act(model),
            "since": model.since if model.state == "loading" else None,
            "unloads_at": model.unloads_at,
            "replicas": [replica(one, t) for one in model.replicas if len(model.replicas) > 1 or one.server],
            "note": spoken(model.note, t) if model.note else None,
        }
        for model in models
    ]


def _act(model: ModelInfo) -> str:
    """What can be done with it: `load`, `unload`, or nothing where another system serves it."""
    if model.keep_alive is None:
        return ""
    return "load" if model.state in ("unloaded", "failed") else "unload"


def replica(one: ReplicaInfo, t: Translate) -> dict[str, Any]:
    """An engine of a model, and what its server says of itself."""
    said = [
        (t("calls of everybody"), one.requests_running),
        (t("waiting there"), one.requests_waiting),
        (t("cache in use"), None if one.cache_usage is None else f"{100 * one.cache_usage:.0f}%"),
        (t("tokens/s"), None if one.tokens_per_s is None else f"{one.tokens_per_s:.1f}"),
        (t("first token"), None if one.ttft_s is None else duration(one.ttft_s)),
        (t("GPU memory"), None if one.device_memory_bytes is None else size(one.device_memory_bytes)),
    ]
    return {
        "name": one.name,
        "state": one.state,
        "server": " ".join(part for part in (one.server, one.version) if part),
        "said": [f"{name}: {value}" for name, value in said if value is not None],
    }


def waiting(queues: Iterable[ModelQueue], t: Translate) -> list[dict[str, Any]]:
    """The calls that wait, the next of each model first, and what for."""
    reasons = {
        "slots": t("a free slot"),
        "loading": t("the model to be loaded"),
        "rate": t("the limit per minute"),
        "backoff": t("the endpoint, which asked to wait"),
        "held": t("its run to be resumed"),
        "preempted": t("a slot again, after a more urgent call"),
    }
    return [
        {
            "model": queue.model,
            "position": call.position,
            "run": call.run_id,
            "tenant": call.tenant,
            "priority": call.priority,
            "since": call.since,
            "reason": reasons[call.reason],
        }
        for queue in queues
        for call in queue.waiting
    ]


def calls(found: Iterable[CallInfo]) -> list[CallInfo]:
    """Calls as the table shows them: as they are metered."""
    return list(found)

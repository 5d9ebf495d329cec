"""Models, and the calls that were made to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmagentos.api.llm import CallInfo, ModelInfo, ModelQueue
from llmagentos.server.console.words import Translate


def rows(models: Iterable[ModelInfo], t: Translate) -> list[dict[str, Any]]:
    """Models as the table shows them."""
    uses = {"chat": t("chat"), "embedding": t("embedding")}
    return [
        {
            "name": model.name,
            "aliases": model.aliases,
            "state": model.state,
            "engine": model.engine,
            "use": uses.get(model.use, model.use),
            "running": f"{model.running} / {model.slots}",
            "waiting": f"{model.waiting} / {model.queue}",
            "note": model.note,
        }
        for model in models
    ]


def waiting(queues: Iterable[ModelQueue], t: Translate) -> list[dict[str, Any]]:
    """The calls that wait, the next of each model first, and what for."""
    reasons = {
        "slots": t("a free slot"),
        "loading": t("the model to be loaded"),
        "rate": t("the limit per minute"),
        "backoff": t("the endpoint, which asked to wait"),
        "held": t("its run to be resumed"),
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

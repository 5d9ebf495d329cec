"""Tool calls and jobs that wait for a person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmagentos.api.approvals import Approval
from llmagentos.server.console.views.block import block, shown
from llmagentos.server.console.words import Translate


def rows(waiting: Iterable[Approval], t: Translate) -> list[dict[str, Any]]:
    """What waits as the page shows it."""
    return [
        {
            "id": each.id,
            "kind": each.kind,
            "run": each.run,
            "job": each.job,
            "agent": each.agent,
            "tool": each.tool,
            "arguments": block(t("Variables") if each.kind == "job" else t("Arguments"), shown(each.arguments))
            if each.arguments
            else None,
            "request": each.request,
            "requested_by": each.requested_by,
            "asked": each.asked,
            "expires": each.expires,
        }
        for each in waiting
    ]

"""Tool calls that wait for a person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmagentos.api.approvals import Approval
from llmagentos.server.console.views.block import block, shown
from llmagentos.server.console.words import Translate


def rows(waiting: Iterable[Approval], t: Translate) -> list[dict[str, Any]]:
    """The calls as the page shows them."""
    return [
        {
            "id": each.id,
            "run": each.run,
            "agent": each.agent,
            "tool": each.tool,
            "arguments": block(t("Arguments"), shown(each.arguments)) if each.arguments else None,
            "request": each.request,
            "requested_by": each.requested_by,
            "asked": each.asked,
            "expires": each.expires,
        }
        for each in waiting
    ]

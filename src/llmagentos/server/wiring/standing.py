"""What the gateway is told of runs: who asked, below which run, and how urgent they are."""

from __future__ import annotations

from llmagentos.agents.ledger import Ledger
from llmagentos.core.errors import NotFound
from llmagentos.llm.asking import Standing, StandingOf

_MAX_DEPTH = 64


def standing_of(ledger: Ledger) -> StandingOf:
    """The share is that of who asked for the root run, the service counts together, the priority is the run's own."""

    async def look_up(run: str) -> Standing | None:
        try:
            found = root = await ledger.get(run)
            for _ in range(_MAX_DEPTH):
                if root.parent is None:
                    break
                root = await ledger.get(root.parent)
        except NotFound:  # of an earlier server whose records are pruned, or a parent that is
            return None
        return Standing(root.created_by, root.id, found.priority)

    return look_up

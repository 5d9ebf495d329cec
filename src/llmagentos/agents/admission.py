"""What the ledger asks before a run begins or calls a tool."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol


class Admission(Protocol):
    """Budgets, as the ledger sees them."""

    async def admit(self, run: str) -> bool:
        """Whether the run may be under way now."""
        ...

    def has_room(self, run: str) -> bool:
        """Whether it is worth to ask again for a run that was not admitted."""
        ...

    def tool_called(self, run: str, call_id: str) -> AbstractAsyncContextManager[None]:
        """Count a tool call that the block makes, once however often it is told; not when the block fails.

        Raises when the run may make no more.
        """
        ...


class Unlimited:
    """Everything may be done."""

    async def admit(self, _: str) -> bool:
        return True

    def has_room(self, _: str) -> bool:
        return True

    def tool_called(self, _: str, __: str) -> AbstractAsyncContextManager[None]:
        """Nothing is counted."""
        return nullcontext()

"""What changed in the budget tree, until it is stored: those who change it at the same time share a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from llmagentos.api.llm import CallInfo
from llmagentos.core import metrics
from llmagentos.kernel.budgets import Path
from llmagentos.llm.budget_calls import run_of
from llmagentos.storage.budgets import CallRecord, Changes, SpendingRecord

_MOST_LOGGED = 10_000
Store = Callable[[Changes], Awaitable[None]]
WindowsOf = Callable[[Path], Mapping[str, Any]]


class Journal:
    """`windows_of` gives what a node has spent at the moment of storing, which fits the calls noted so far."""

    def __init__(self, store: Store, windows_of: WindowsOf) -> None:
        self._store = store
        self._windows_of = windows_of
        self._pending = Changes()
        self._spent: set[Path] = set()
        self._lock = asyncio.Lock()
        self._noted = 0
        self._stored = 0

    def call(self, record: CallRecord) -> None:
        """A call holds or has taken something."""
        self._pending.calls[record.id] = record
        self._noted += 1

    def logged(self, calls: Iterable[CallInfo]) -> None:
        """Calls that have ended, with what was counted for them: stored together with it."""
        self._pending.logged.extend(calls)
        del self._pending.logged[:-_MOST_LOGGED]  # while storage is away
        self._noted += 1

    def gone(self, call_id: str) -> None:
        """A call needs no record any more."""
        self._pending.calls[call_id] = None
        self._noted += 1

    def spent(self, path: Path) -> None:
        """The node and its ancestors have spent something."""
        self._spent.update(path[:depth] for depth in range(1, len(path) + 1))
        self._noted += 1

    def forgotten(self, paths: Iterable[Path]) -> None:
        """Nodes that are no longer there."""
        for path in paths:
            self._spent.discard(path)
            self._pending.spending["/".join(path)] = None
        self._noted += 1

    def closed(self, run: str, path: Path) -> None:
        """A run has ended: nothing of its own node is kept."""
        self._pending.calls = {id_: r for id_, r in self._pending.calls.items() if r is None or r.run != run}
        self._spent.discard(path)
        self._pending.closed.add(run)
        self._noted += 1

    async def commit(self) -> None:
        """Returns when all that was noted so far is durable. Raises storage's errors; the changes are kept then."""
        wanted = self._noted
        async with self._lock:
            if self._stored >= wanted:
                return
            reached, changes = self._noted, self._take()
            try:
                with metrics.BUDGET_COMMIT.time():
                    await self._store(changes)
            except BaseException:  # whether it was stored is not known; storing it again changes nothing
                self._pending = changes.before(self._pending)
                raise
            self._stored = reached

    def _take(self) -> Changes:
        changes = self._pending
        for path in self._spent:
            name = "/".join(path)
            changes.spending[name] = SpendingRecord(name, run_of(path), self._windows_of(path))
        self._pending, self._spent = Changes(), set()
        return changes

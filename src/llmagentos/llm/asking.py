"""Who asks for a call, on whose share of the model, and how urgently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from llmagentos.security.identity import Identity

_MAX_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts of a run when its calls are ordered."""

    tenant: str
    """Who asked for it: calls use this identity's share, whoever carries the run on."""
    program: str
    """The root run, whose service counts."""
    priority: int = 0


StandingOf = Callable[[str], Awaitable[Standing | None]]
"""From a run's id; None for a run that is not known."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request at the gate. `deadline` is in monotonic seconds."""

    caller: Identity
    deadline: float
    run_id: str | None
    tenant: str
    program: str | None
    priority: int
    wanted: int | None = None
    """The priority that the request itself names."""


class Standings:
    """The standings of runs, each looked up once."""

    def __init__(self) -> None:
        self.look_up: StandingOf = _unknown
        self._known: OrderedDict[str, Standing] = OrderedDict()
        self._reniced = 0

    async def asked(self, caller: Identity, deadline: float, run_id: str | None, priority: int | None) -> Asked:
        """The request with what is known of its run. A call of a run can be less urgent than it, not more."""
        standing = await self._of(run_id) if run_id is not None else None
        if standing is None:
            return Asked(caller, deadline, run_id, str(caller), run_id, priority or 0)
        nice = _nice(standing, priority)
        return Asked(caller, deadline, run_id, standing.tenant, standing.program, nice, priority)

    def priority(self, asked: Asked) -> int:
        """The request's priority now: its run may have been reniced since it was asked."""
        known = self._known.get(asked.run_id) if asked.run_id is not None else None
        return asked.priority if known is None else _nice(known, asked.wanted)

    def renice(self, run_id: str, priority: int) -> None:
        """The run and its sub-runs have this priority from now on."""
        self._reniced += 1
        for key, known in self._known.items():
            if run_id in (key, known.program):
                self._known[key] = replace(known, priority=priority)

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        self._known.pop(run_id, None)

    async def _of(self, run_id: str) -> Standing | None:
        if (known := self._known.get(run_id)) is not None:
            self._known.move_to_end(run_id)
            return known
        found, before = None, -1
        while before != self._reniced:  # else what was looked up may be what was so before
            before, found = self._reniced, await self.look_up(run_id)
        if found is not None:
            self._known[run_id] = found
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return found


def _nice(standing: Standing, wanted: int | None) -> int:
    return standing.priority if wanted is None else max(standing.priority, wanted)


async def _unknown(_: str) -> None:
    return None

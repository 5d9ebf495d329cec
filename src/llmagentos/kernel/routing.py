"""On which replica of a model a call is placed, and on which other model when it cannot be had.

A call goes where its prefix is cached, or where there is most room.

Computing a long prompt again costs more than waiting for the replica that has it in its cache, a short
one less (Autellix, arXiv 2502.13965, section 4.3: sticky above 2,048 input tokens).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LONG_PROMPT = 2048
MAX_PREFIXES = 10_000


Failure = Literal["error", "timeout", "quota"]


@dataclass(frozen=True, slots=True)
class Fallback:
    """A model that takes another's calls when they fail `on` one of these."""

    model: str
    on: frozenset[Failure] = frozenset({"error", "timeout", "quota"})


def fallback(
    chain: Sequence[Fallback], failure: Failure, *, tried: Collection[str], usable: Collection[str]
) -> str | None:
    """The next model for a call that failed; None when no other can take it.

    `tried` are the models that it failed on, `usable` those whose breakers are closed.
    """
    return next(
        (other.model for other in chain if failure in other.on and other.model in usable and other.model not in tried),
        None,
    )


@dataclass(slots=True)
class Replica:
    """An engine that serves the model. `slots` calls at once."""

    name: str
    slots: int
    running: int = 0

    @property
    def load(self) -> float:
        """Share of the slots in use."""
        return self.running / self.slots


class Router:
    """The replicas of one model and where prefixes were seen last."""

    def __init__(
        self, replicas: Mapping[str, int], *, long_prompt: int = LONG_PROMPT, max_prefixes: int = MAX_PREFIXES
    ) -> None:
        self._replicas = {name: Replica(name, slots) for name, slots in replicas.items()}
        self._long = long_prompt
        self._homes: OrderedDict[str, str] = OrderedDict()
        self._max_prefixes = max_prefixes

    def place(self, prefix: str | None, tokens_in: int, *, usable: Collection[str] | None = None) -> str | None:
        """The replica for a call, counted as running there; None when none with a free slot may be used.

        `prefix` names what the prompt begins with (a run, a session, a hash). `usable` are the replicas
        whose breakers are closed; all when None.
        """
        open_to = [
            replica
            for replica in self._replicas.values()
            if replica.running < replica.slots and (usable is None or replica.name in usable)
        ]
        if not open_to:
            return None
        home = self._homes.get(prefix) if prefix is not None and tokens_in > self._long else None
        chosen = next((replica for replica in open_to if replica.name == home), None)
        if chosen is None:
            chosen = min(open_to, key=lambda replica: (replica.load, -replica.slots))
        chosen.running += 1
        if prefix is not None:
            self._remember(prefix, chosen.name)
        return chosen.name

    def leave(self, name: str) -> None:
        """A call placed on `name` has ended."""
        replica = self._replicas.get(name)
        if replica is not None and replica.running > 0:
            replica.running -= 1

    def running(self, name: str) -> int:
        """How many calls are placed on `name`."""
        replica = self._replicas.get(name)
        return 0 if replica is None else replica.running

    def resize(self, name: str, slots: int) -> None:
        """A replica came (it is new), went (0 slots) or has another number of slots."""
        if slots == 0:
            self._replicas.pop(name, None)
            for prefix in [prefix for prefix, home in self._homes.items() if home == name]:
                del self._homes[prefix]
        elif name in self._replicas:
            self._replicas[name].slots = slots
        else:
            self._replicas[name] = Replica(name, slots)

    def slots(self, usable: Collection[str] | None = None) -> int:
        """Slots of the usable replicas together: what the scheduler may hand out."""
        return sum(r.slots for r in self._replicas.values() if usable is None or r.name in usable)

    def _remember(self, prefix: str, name: str) -> None:
        self._homes[prefix] = name
        self._homes.move_to_end(prefix)
        if len(self._homes) > self._max_prefixes:
            self._homes.popitem(last=False)

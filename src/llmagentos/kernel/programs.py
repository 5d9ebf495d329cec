"""Service that runs have had: the least served goes first (PLAS and ATLAS, arXiv 2502.13965).

One number per program. Under PLAS it is the sum of the service of its calls; under ATLAS that of the
longest chain of calls seen so far, so that a run which fans out is not punished for it. It decides on
the queue, not on the place in it, so that equal runs finish one after the other rather than all late.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from llmagentos.kernel.calls import Submission
from llmagentos.kernel.fairness import Tenant
from llmagentos.kernel.policy import Policy
from llmagentos.kernel.ranking import Ranking

MAX_IDLE = 10_000
IDLE_S = 3600.0


@dataclass(slots=True, eq=False)
class Program:
    """What is remembered of a run. `attained` counts from the last promotion as `attained - forgiven`."""

    key: str
    lasting: bool
    """More calls may follow; False for a call without a run."""
    attained: float = 0.0
    forgiven: float = 0.0
    running: int = 0
    waiting: int = 0
    stalled_s: float = 0.0
    """Seconds in which calls waited and none ran, since the last promotion."""
    served_s: float = 0.0
    stalled_since: float | None = None
    watched: bool = False
    """Its promotion is scheduled."""
    idle_since: float = 0.0
    queues: set[ProgramQueue] = field(default_factory=set)
    """Where calls of it wait."""


@dataclass(slots=True, eq=False)
class Entry:
    """A call from its submission to its end."""

    call: Submission
    number: int
    """Order of arrival."""
    since: float
    program: Program
    tenant: Tenant[ProgramQueue]
    path: float
    """Service of the chain of calls before it (ATLAS)."""
    held: bool = False
    begun: float = 0.0
    charged_in: int | None = None
    produced: int = 0
    suspended: bool = False
    """It ran before, and gave way to a more urgent call."""


class ProgramQueue:
    """Waiting calls of one tenant, by program."""

    def __init__(self, policy: Policy) -> None:
        self._levels = policy.levels
        self._critical = policy.programs == "atlas"
        self.calls: dict[str, OrderedDict[str, Entry]] = {}
        self.ranks: Ranking[str] = Ranking(self._rank)

    def __bool__(self) -> bool:
        return bool(self.calls)

    def push(self, entry: Entry) -> None:
        """Queue a call by its number among those of its program."""
        key = entry.program.key
        calls = self.calls.get(key)
        if calls is None:
            self.calls[key] = OrderedDict({entry.call.id: entry})
            entry.program.queues.add(self)
            self.ranks.add(key)
            return
        late = next(reversed(calls.values())).number > entry.number
        calls[entry.call.id] = entry
        if late:  # it was taken out before, to be held, suspended or given another priority
            self.calls[key] = OrderedDict(sorted(calls.items(), key=lambda item: item[1].number))
            self.ranks.fallen(key)

    def first(self) -> Entry:
        """The next call; it stays in. Must not be empty."""
        return next(iter(self.calls[self.ranks.first()].values()))

    def remove(self, entry: Entry) -> None:
        """Take a call out."""
        key = entry.program.key
        calls = self.calls[key]
        del calls[entry.call.id]
        if not calls:
            del self.calls[key]
            entry.program.queues.discard(self)
            self.ranks.discard(key)

    def _rank(self, key: str) -> tuple[int, int, int]:
        calls = self.calls[key]
        entry = calls[next(iter(calls))]
        program = entry.program
        attained = entry.path if self._critical else program.attained
        # A program with calls under way has more service than has been counted: it comes after its equals.
        return bisect_right(self._levels, attained - program.forgiven), program.running, entry.number


@dataclass(slots=True)
class ProgramTable:
    """The programs of one model. Idle ones are forgotten after an hour, or the oldest when they are many."""

    policy: Policy
    max_idle: int = MAX_IDLE
    idle_s: float = IDLE_S
    _known: dict[str, Program] = field(default_factory=dict)
    _idle: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _due: list[tuple[float, int, Program]] = field(default_factory=list)
    _pushed: int = 0

    def __len__(self) -> int:
        return len(self._known)

    def of(self, call: Submission) -> Program:
        """The program that a call belongs to."""
        if self.policy.programs == "off":
            key, lasting = "", True
        else:
            key, lasting = call.program or call.run_id or call.id, (call.program or call.run_id) is not None
        program = self._known.get(key)
        if program is None:
            program = self._known[key] = Program(key, lasting)
        return program

    def waits(self, program: Program, now: float) -> None:
        """One more of its calls waits."""
        self._idle.pop(program.key, None)
        program.waiting += 1
        self._stall(program, now)

    def withdrawn(self, program: Program, now: float) -> None:
        """A waiting call of it was taken out."""
        program.waiting -= 1
        if program.waiting == 0:
            self._resume(program, now)
        self._rest(program, now)

    def starts(self, program: Program, now: float) -> None:
        """A waiting call of it starts to run."""
        program.waiting -= 1
        program.running += 1
        self._resume(program, now)

    def ends(self, program: Program, seconds: float, now: float) -> None:
        """A call of it that ran for `seconds` has ended."""
        program.running -= 1
        program.served_s += seconds
        self._stall(program, now)
        self._rest(program, now)

    def charge(self, entry: Entry, tokens: float) -> None:
        """Count weighted tokens of service of a call."""
        program = entry.program
        if self.policy.programs == "plas":
            program.attained += tokens
        elif self.policy.programs == "atlas":
            program.attained = max(program.attained, entry.path + self.service(entry))

    def service(self, entry: Entry) -> float:
        """Weighted tokens that the call has had."""
        return self.policy.weight_in * (entry.charged_in or 0) + self.policy.weight_out * entry.produced

    def promoted(self, now: float) -> Iterator[Program]:
        """Promote the programs that have stood still for too long; they rank lower from now on."""
        while self._due and self._due[0][0] <= now:
            program = heappop(self._due)[2]
            program.watched = False
            if program.stalled_since is None:
                continue
            if self._due_at(program) > now:
                self._watch(program)
                continue
            program.forgiven = program.attained
            program.stalled_s = program.served_s = 0.0
            program.stalled_since = now
            yield program

    def forget(self, key: str) -> None:
        """The run has ended."""
        program = self._known.get(key)
        if program is not None:
            program.lasting = False
            if key in self._idle:
                self._drop(key)

    def _stall(self, program: Program, now: float) -> None:
        if program.waiting == 0 or program.running > 0 or program.stalled_since is not None:
            return
        program.stalled_since = now
        if not program.watched and self.policy.level(program.attained - program.forgiven) > 0:
            self._watch(program)

    def _watch(self, program: Program) -> None:
        if self.policy.beta is None or self.policy.programs == "off":
            return
        if len(self._due) > 2 * len(self._known) + 64:  # most are of programs that have ended
            for _, _, gone in self._due:
                gone.watched = gone.stalled_since is not None
            self._due = [item for item in self._due if item[2].watched]
            heapify(self._due)
        self._pushed += 1
        program.watched = True
        heappush(self._due, (self._due_at(program), self._pushed, program))

    def _due_at(self, program: Program) -> float:
        since = program.stalled_since
        return (0.0 if since is None else since) + (self.policy.beta or 0.0) * program.served_s - program.stalled_s

    def _resume(self, program: Program, now: float) -> None:
        if program.stalled_since is not None:
            program.stalled_s += now - program.stalled_since
            program.stalled_since = None

    def _rest(self, program: Program, now: float) -> None:
        if program.waiting or program.running:
            return
        program.idle_since = now
        if not program.lasting:
            del self._known[program.key]
            return
        self._idle[program.key] = None
        while self._idle:
            oldest = next(iter(self._idle))
            if len(self._idle) <= self.max_idle and now - self._known[oldest].idle_since < self.idle_s:
                return
            self._drop(oldest)

    def _drop(self, key: str) -> None:
        del self._idle[key]
        del self._known[key]

"""Replays a trace against a scheduler: events in the order of time, no clock but theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Protocol

from llmagentos.kernel.calls import Admission, Capacity, Outcome, Submission
from llmagentos.kernel.policy import POLICIES, Policy
from llmagentos.kernel.scheduling import PolicyScheduler
from llmagentos.kernel.simulator.engine import EngineModel, PrefixCache
from llmagentos.kernel.simulator.oracle import ShortestRemaining
from llmagentos.kernel.simulator.trace import Call, Run

ORACLE = "oracle"
MODEL = "model"
_UNBOUNDED = 1 << 40


class Decider(Protocol):
    """The part of a scheduler that a replay needs."""

    def submit(self, call: Submission, now: float) -> None: ...
    def next(self, now: float) -> list[Admission]: ...
    def produced(self, call_id: str, tokens: int) -> None: ...
    def finish(self, call_id: str, now: float, outcome: Outcome | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call as it went. Times in seconds from the start of the trace."""

    run: Run
    slot: int
    submitted: float
    begun: float
    ended: float
    tokens: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it went; `alone` is how long it takes on an idle engine."""

    run: Run
    ended: float
    alone: float

    @property
    def completion(self) -> float:
        """Seconds from its start to its end."""
        return self.ended - self.run.at

    @property
    def slowdown(self) -> float:
        """How many times longer it took than alone."""
        return self.completion / self.alone if self.alone > 0 else 1.0


@dataclass(slots=True)
class Replay:
    """What came of a trace under one policy."""

    policy: str
    slots: int
    calls: list[CallRecord] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    service: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """Weighted tokens that each tenant had been served, as time went on."""


@dataclass(slots=True)
class _Running:
    run: Run
    step: int
    call: Call
    slot: int
    submitted: float
    begun: float
    first_token: float
    told: int = 0


def decider(policy: Policy | str, trace: Sequence[Run], engine: EngineModel) -> Decider:
    """The scheduler for a policy, a policy's name, or `oracle`."""
    if policy == ORACLE:
        calls = {_id(r, s, n): engine.seconds(call) for r in trace for s, n, call in _calls(r)}
        work = {run.id: sum(engine.seconds(call) for _, _, call in _calls(run)) for run in trace}
        return ShortestRemaining(engine.slots, work, calls)
    chosen = POLICIES[policy] if isinstance(policy, str) else policy
    return PolicyScheduler({MODEL: Capacity(engine.slots, _UNBOUNDED)}, chosen)


def replay(trace: Sequence[Run], policy: Policy | str, engine: EngineModel) -> Replay:
    """Run a trace to its end under a policy."""
    name = policy if isinstance(policy, str) else policy.name
    return _Replayer(trace, decider(policy, trace, engine), engine, Replay(name, engine.slots)).run()


def _calls(run: Run) -> list[tuple[int, int, Call]]:
    return [(s, n, call) for s, step in enumerate(run.steps) for n, call in enumerate(step.calls)]


def _id(run: Run, step: int, number: int) -> str:
    return f"{run.id}/{step}/{number}"


class _Replayer:
    def __init__(self, trace: Sequence[Run], scheduler: Decider, engine: EngineModel, found: Replay) -> None:
        self._scheduler = scheduler
        self._engine = engine
        self._found = found
        self._cache = PrefixCache(engine.cached_runs)
        # (time, order, run, step, call's id): a run's step begins, or a call of it ends.
        self._events: list[tuple[float, int, Run, int, str | None]] = [
            (run.at, number, run, 0, None) for number, run in enumerate(trace)
        ]
        heapify(self._events)
        self._pushed = len(self._events)
        self._asked: dict[str, tuple[Run, int, Call, float]] = {}
        self._running: dict[str, _Running] = {}
        self._left: dict[str, int] = {}
        self._slots = list(range(engine.slots))
        self._served: defaultdict[str, float] = defaultdict(float)

    def run(self) -> Replay:
        while self._events:
            now = self._events[0][0]
            self._tell(now)
            while self._events and self._events[0][0] <= now:
                _, _, run, step, ended = heappop(self._events)
                if ended is None:
                    self._begin(run, step, now)
                else:
                    self._end(ended, now)
            for admission in self._scheduler.next(now):
                self._start(admission.call.id, now)
            self._found.service.append((now, dict(self._served)))
        return self._found

    def _begin(self, run: Run, step: int, now: float) -> None:
        calls = run.steps[step].calls
        self._left[run.id] = len(calls)
        for number, call in enumerate(calls):
            call_id = _id(run, step, number)
            self._asked[call_id] = (run, step, call, now)
            submission = Submission(
                call_id,
                MODEL,
                run.tenant,
                run.id,
                tenant=run.tenant,
                priority=run.priority,
                tokens_in=call.tokens_in,
            )
            self._scheduler.submit(submission, now)

    def _start(self, call_id: str, now: float) -> None:
        run, step, call, submitted = self._asked.pop(call_id)
        cached = self._cache.hit(run.id, call.tokens_in)
        prefill = (call.tokens_in - cached) / self._engine.prefill
        slot = heappop(self._slots)
        self._running[call_id] = _Running(run, step, call, slot, submitted, now, now + prefill)
        self._served[run.tenant] += call.tokens_in
        self._push(now + self._engine.seconds(call, cached), run, step, call_id)

    def _end(self, call_id: str, now: float) -> None:
        running = self._running.pop(call_id)
        run, call = running.run, running.call
        self._served[run.tenant] += 2 * (call.tokens_out - running.told)
        self._scheduler.finish(call_id, now, Outcome(call.tokens_in, call.tokens_out))
        self._cache.keep(run.id, call.tokens_in + call.tokens_out)
        heappush(self._slots, running.slot)
        tokens = call.tokens_in + call.tokens_out
        self._found.calls.append(CallRecord(run, running.slot, running.submitted, running.begun, now, tokens))
        self._left[run.id] -= 1
        if self._left[run.id] > 0:
            return
        if running.step + 1 < len(run.steps):
            self._push(now + run.steps[running.step].pause, run, running.step + 1, None)
        else:
            self._found.runs.append(RunRecord(run, now, self._engine.alone(run)))

    def _tell(self, now: float) -> None:
        """Charge what has been produced up to now, before it is decided on."""
        for call_id, running in self._running.items():
            produced = min(running.call.tokens_out, max(0, int((now - running.first_token) * self._engine.decode)))
            if produced > running.told:
                self._scheduler.produced(call_id, produced - running.told)
                self._served[running.run.tenant] += 2 * (produced - running.told)
                running.told = produced

    def _push(self, at: float, run: Run, step: int, call_id: str | None) -> None:
        self._pushed += 1
        heappush(self._events, (at, self._pushed, run, step, call_id))

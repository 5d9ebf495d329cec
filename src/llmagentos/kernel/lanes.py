"""The calls of one model: those that wait, in the order of the policy, and those that run."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from llmagentos.kernel.calls import Admission, Capacity, Outcome, Preemption, QueueFull, Reason, Submission
from llmagentos.kernel.concurrency import AdaptiveLimit, Throughput
from llmagentos.kernel.fairness import VirtualTokens
from llmagentos.kernel.order import in_order
from llmagentos.kernel.policy import Policy
from llmagentos.kernel.programs import Entry, ProgramQueue, ProgramTable

_FIRST_GUESS_S = 2.0
_SMOOTHING = 0.2
_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 60.0


class Lane:
    """One model. Every call is submitted once and ends in `finish`, `withdraw` or `expire`."""

    def __init__(self, name: str, capacity: Capacity, policy: Policy) -> None:
        self.name = name
        self.capacity = capacity
        self.waiting: dict[str, Entry] = {}
        self.running: dict[str, Entry] = {}
        self.programs = ProgramTable(policy)
        self._policy = policy
        self._classes: dict[int, VirtualTokens[ProgramQueue]] = {}
        self._limit = AdaptiveLimit(capacity.slots) if capacity.adaptive else None
        self.throughput = Throughput(capacity.requests_per_minute, capacity.tokens_per_minute)
        self._deadlines: list[tuple[float, int, str]] = []
        self._typical_s = _FIRST_GUESS_S
        self._typical_out = 0.0
        self._arrived = 0

    @property
    def slots(self) -> int:
        """How many calls may run at once, by now."""
        return self.capacity.slots if self._limit is None else min(self.capacity.slots, self._limit.slots)

    def free(self) -> int:
        """Slots that no call has."""
        return self.slots - len(self.running)

    def submit(self, call: Submission, now: float, *, held: bool) -> None:
        """Queue a call. Raises `QueueFull`."""
        # Who can run at once does not count as waiting: a queue of one still lets every slot be used.
        if len(self.waiting) >= self.capacity.queue + max(0, self.free()):
            raise QueueFull(
                f"{len(self.waiting)} calls already wait for the model {self.name!r}",
                retry_after=min(_RETRY_MAX_S, max(_RETRY_MIN_S, self._typical_s / max(1, self.slots))),
                hint="try again later; models.<name>.queue and .slots in llmagentos.yaml set the limits",
            )
        self._arrived += 1
        program = self.programs.of(call)
        tenants = self._class(call.priority)
        tenant = tenants.get(self._owner(call))
        tenant = tenants.join(self._owner(call), ProgramQueue(self._policy) if tenant is None else tenant.queue)
        path = program.attained if self._policy.programs == "atlas" else 0.0
        entry = Entry(call, self._arrived, now, program, tenant, path, held)
        self.waiting[call.id] = entry
        if call.deadline is not None:
            heappush(self._deadlines, (call.deadline, self._arrived, call.id))
        if not held:
            self._enqueue(entry, now)

    def admit(self, now: float) -> Iterator[Admission]:
        """The calls that may start now, in order."""
        if self.free() <= 0 or not self.waiting:
            return
        for program in self.programs.promoted(now):
            for queue in program.queues:
                queue.ranks.fallen(program.key)
        while self.free() > 0 and (entry := self._first()) is not None:
            if self.throughput.ready_at(self._tokens(entry), now) > now:
                return
            self._start(entry, now)
            yield Admission(entry.call, now - entry.since)

    def produced(self, call_id: str, tokens: int) -> None:
        """A running call has produced so many more tokens."""
        entry = self.running[call_id]
        entry.produced += tokens
        self._charge(entry, self._policy.weight_out * tokens)

    def finish(self, call_id: str, outcome: Outcome | None, now: float) -> None:
        """A running call has ended; its service is corrected to what it really took."""
        entry = self.running.pop(call_id)
        expected = self._tokens(entry)
        if outcome is not None:
            self._settle(entry, outcome)
            self.throughput.correct((entry.charged_in or 0) + entry.produced - expected, now)
            self._adapt(entry, outcome, now)
        self._typical_s += _SMOOTHING * (now - entry.begun - self._typical_s)
        self._typical_out += _SMOOTHING * (entry.produced - self._typical_out)
        self._stop(entry, now)
        self._class(entry.call.priority).leave(entry.tenant)

    def suspend(self, call_id: str, now: float, *, held: bool) -> None:
        """A running call was interrupted; it waits in its old place and is not charged again for its input."""
        entry = self.running.pop(call_id)
        self._stop(entry, now)
        entry.program = self.programs.of(entry.call)
        entry.suspended = True
        self.waiting[call_id] = entry
        if entry.call.deadline is not None:
            heappush(self._deadlines, (entry.call.deadline, entry.number, call_id))
        entry.held = held
        if not held:
            self._enqueue(entry, now)

    def withdraw(self, call_id: str, now: float) -> Submission:
        """Take a waiting call out for good."""
        entry = self.waiting.pop(call_id)
        if not entry.held:
            self._dequeue(entry, now)
        self._leave(entry)
        if len(self._deadlines) > 2 * len(self.waiting) + 64:
            self._deadlines = [item for item in self._deadlines if item[2] in self.waiting]
            heapify(self._deadlines)
        return entry.call

    def hold(self, call_id: str, now: float) -> None:
        """Keep a waiting call from starting; its deadline still runs."""
        entry = self.waiting[call_id]
        if not entry.held:
            self._dequeue(entry, now)
            entry.held = True

    def release(self, call_id: str, now: float) -> None:
        """Let a held call start when its turn comes: it kept its place."""
        entry = self.waiting[call_id]
        if entry.held:
            entry.held = False
            entry.program = self.programs.of(entry.call)
            self._enqueue(entry, now)

    def renice(self, call: Submission, now: float) -> None:
        """`call`, which waits, has another priority from now on."""
        old = self.waiting[call.id]
        if not old.held:
            self._dequeue(old, now)
        self._leave(old)
        tenants = self._class(call.priority)
        tenant = tenants.get(old.tenant.name)
        tenant = tenants.join(old.tenant.name, ProgramQueue(self._policy) if tenant is None else tenant.queue)
        program = self.programs.of(call)
        entry = Entry(
            call,
            old.number,
            old.since,
            program,
            tenant,
            old.path,
            old.held,
            charged_in=old.charged_in,
            produced=old.produced,
            suspended=old.suspended,
        )
        self.waiting[call.id] = entry
        if not entry.held:
            self._enqueue(entry, now)

    def expire(self, now: float) -> Iterator[Submission]:
        """Take out the waiting calls whose deadline has passed."""
        while (first := self.next_deadline()) is not None and first <= now:
            yield self.withdraw(heappop(self._deadlines)[2], now)

    def next_deadline(self) -> float | None:
        """The first deadline of a waiting call."""
        while self._deadlines and self._deadlines[0][2] not in self.waiting:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def ready_at(self, now: float) -> float | None:
        """When the limits per minute let the next call start, if nothing but they keeps it from starting."""
        if self.free() <= 0 or (entry := self._first()) is None:
            return None
        ready = self.throughput.ready_at(self._tokens(entry), now)
        return ready if ready > now else None

    def reason(self, entry: Entry, now: float) -> Reason:
        """Why a waiting call waits."""
        if entry.held:
            return "held"
        if entry.suspended:
            return "preempted"
        if now < self.throughput.backoff_until:
            return "backoff"
        if self.capacity.slots == 0:
            return "loading"
        return "slots" if self.free() <= 0 else "rate"

    def order(self) -> list[Entry]:
        """The waiting calls in the order in which they would start if nothing else came; held ones last."""
        ordered = [
            entry
            for priority in sorted(self._classes)
            for entry in in_order(self._classes[priority], self._policy, self._typical_out)
        ]
        return ordered + [entry for entry in self.waiting.values() if entry.held]

    def preemptions(self) -> list[Preemption]:
        """Running calls that should give way to strictly more urgent ones, the least urgent and youngest first."""
        if not (self.capacity.preemptive and self._policy.priorities) or self.free() > 0:
            return []
        victims = sorted(
            (entry for entry in self.running.values() if entry.call.interruptible),
            key=lambda e: (-e.call.priority, -e.begun),
        )
        first = self._first()
        if first is None or not victims or first.call.priority >= (lowest := victims[0].call.priority):
            return []
        urgent = sorted(
            (e for e in self.waiting.values() if not e.held and e.call.priority < lowest),
            key=lambda e: (e.call.priority, e.number),
        )
        return [
            Preemption(victim.call.id, entry.call.id)
            for victim, entry in zip(victims, urgent, strict=False)
            if entry.call.priority < victim.call.priority
        ]

    def _owner(self, call: Submission) -> str:
        return (call.tenant or call.caller) if self._policy.fair else ""

    def _class(self, priority: int) -> VirtualTokens[ProgramQueue]:
        key = priority if self._policy.priorities else 0
        found = self._classes.get(key)
        if found is None:
            found = self._classes[key] = VirtualTokens()
        return found

    def _first(self) -> Entry | None:
        first = min((key for key, tenants in self._classes.items() if tenants.any_waiting), default=None)
        return None if first is None else self._classes[first].first().queue.first()

    def _enqueue(self, entry: Entry, now: float) -> None:
        entry.tenant.queue.push(entry)
        self._class(entry.call.priority).backlogged(entry.tenant)
        self.programs.waits(entry.program, now)

    def _dequeue(self, entry: Entry, now: float) -> None:
        self._unqueue(entry)
        self.programs.withdrawn(entry.program, now)

    def _unqueue(self, entry: Entry) -> None:
        entry.tenant.queue.remove(entry)
        if not entry.tenant.queue:
            self._class(entry.call.priority).drained(entry.tenant)

    def _leave(self, entry: Entry) -> None:
        self._class(entry.call.priority).leave(entry.tenant)

    def _start(self, entry: Entry, now: float) -> None:
        del self.waiting[entry.call.id]
        self._unqueue(entry)
        self.running[entry.call.id] = entry
        entry.suspended = False
        entry.begun = now
        self.throughput.start(self._tokens(entry), now)
        self._class(entry.call.priority).served(entry.tenant)
        self.programs.starts(entry.program, now)
        if entry.charged_in is None:
            # A call of unknown size counts as one token, so that tenants and runs then share by calls.
            entry.charged_in = max(1, entry.call.tokens_in)
            self._charge(entry, self._policy.weight_in * entry.charged_in)

    def _stop(self, entry: Entry, now: float) -> None:
        self.programs.ends(entry.program, now - entry.begun, now)
        entry.tenant.queue.ranks.fallen(entry.program.key)

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        before = self.programs.service(entry)
        if outcome.tokens_in is not None:
            entry.charged_in = outcome.tokens_in
        if outcome.tokens_out is not None:
            entry.produced = outcome.tokens_out
        self._charge(entry, self.programs.service(entry) - before)

    def _charge(self, entry: Entry, tokens: float) -> None:
        self._class(entry.call.priority).charge(entry.tenant, tokens, entry.call.share)
        self.programs.charge(entry, tokens)

    def _tokens(self, entry: Entry) -> int:
        return max(0, entry.call.tokens_in) + max(0, entry.call.tokens_out)

    def _adapt(self, entry: Entry, outcome: Outcome, now: float) -> None:
        if outcome.overloaded or outcome.retry_after is not None:
            self.throughput.back_off(outcome.retry_after, now)
        if self._limit is None:
            return
        if outcome.overloaded:
            self._limit.overloaded(begun=entry.begun, now=now)
        else:
            running = len(self.running) + 1
            self._limit.succeeded(running=running, begun=entry.begun, ttft_s=outcome.ttft_s, now=now)

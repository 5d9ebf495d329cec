"""What every call passes: its budget, the queue, the engine. All of it is given back however the call ends.

Nothing in the clean-up waits, so that a slot is free at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from llmagentos.api.llm import EmbeddingRequest
from llmagentos.core.clock import Clock
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.kernel.calls import Submission
from llmagentos.kernel.policy import Policy
from llmagentos.kernel.scheduling import PolicyScheduler
from llmagentos.llm.admission import Admissions, Slot
from llmagentos.llm.asking import Asked, Standings
from llmagentos.llm.budget_calls import Demand, Hold
from llmagentos.llm.call import Call
from llmagentos.llm.directory import Directory, Model
from llmagentos.llm.failures import broken, refused
from llmagentos.llm.generation import Asking, interruptible
from llmagentos.llm.metering import CallCancelled, Measurement, Meter, Operation
from llmagentos.llm.parting import Parted
from llmagentos.llm.replicas import Placed, Replicas
from llmagentos.llm.sizes import Sizes, length_of, prefix_of
from llmagentos.llm.tries import Tries

Request = Asking | EmbeddingRequest
_MOST_OVER = 10_000
Holding = Callable[[Measurement, Asked, Demand], AbstractAsyncContextManager[Hold]]
"""Holds what a call may take of its budgets while it is under way."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that has its slot."""

    call: Call
    slot: Slot
    model: Model
    request: Request
    submission: Submission
    most_out: int | None
    """The most tokens that its budget lets it generate; None when no budget limits it."""


class Passage:
    """The way of calls to `models`. `shares` are the weights of tenants; 1 for those that are not named."""

    def __init__(
        self, models: Sequence[Model], *, meter: Meter, clock: Clock, policy: Policy, shares: Mapping[str, float]
    ) -> None:
        self.models = Directory(models)
        self.standings = Standings()
        self.holding: Holding = _unlimited
        self.parted = Parted()
        self._meter = meter
        self._clock = clock
        self._shares = dict(shares)
        self._runs: dict[str, set[Call]] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._sizes = {model.name: Sizes() for model in models}
        scheduler = PolicyScheduler({m.name: m.capacity for m in models}, policy)
        self.admissions = Admissions(scheduler, [m.name for m in models], clock)
        self.replicas = {model.name: Replicas.of(model, clock) for model in models}
        for name, replicas in self.replicas.items():
            replicas.on_change = partial(self._changed, name)
            if (residence := self.models[name].residence) is not None:
                residence.on_change = replicas.on_change

    def again(self, tries: Tries, error: LLMAgentOSError) -> bool:
        """Whether what failed with `error` is to be tried again."""
        usable = {model.name: self.replicas[model.name].usable for model in self.models}
        return tries.after(error, self._clock.monotonic(), models=self.models, usable=lambda name: usable[name]())

    def cancel_run(self, run_id: str) -> int:
        """Stop the calls of a run, waiting or running; how many."""
        for call in self._runs.get(run_id, ()):
            call.release()
        return _cancelled(self._runs.get(run_id, ()))

    def put_down(self, run_id: str, *, everything: bool) -> int:
        """Stop the calls of a run that wait for a slot or have one, or with `everything` for their budget; how many."""
        return _cancelled([call for call in self._runs.get(run_id, ()) if call.submitted or everything])

    def ended(self, run_id: str) -> None:
        """The run is over: a call that was on its way here when it was killed does not start."""
        self.parted.forget(run_id)
        self._over[run_id] = None
        if len(self._over) > _MOST_OVER:
            self._over.popitem(last=False)

    def hold(self, run_id: str) -> None:
        """Pause a run: none of its calls starts, and those that engines work on give up their slots."""
        self.admissions.hold(run_id)
        for call in self._runs.get(run_id, ()):
            call.hold()

    def release(self, run_id: str) -> None:
        """End `hold`."""
        for call in self._runs.get(run_id, ()):
            call.release()
        self.admissions.release(run_id)

    @asynccontextmanager
    async def call(self, operation: Operation, request: Request, asked: Asked, tries: Tries) -> AsyncIterator[Admitted]:
        """A call that has its slot; metered and given back however the block ends."""
        if asked.run_id in self._over:
            raise CallCancelled(f"the run {asked.run_id} has ended")
        model = tries.model
        measured = self._meter.begin(
            operation, model=model.name, engine=model.kind, caller=str(asked.caller), run_id=asked.run_id
        )
        call = Call(measured, self._clock, deadline=asked.deadline, silence_s=model.silence_s)
        length = length_of(request)
        submission = self._submission(measured.id, model, request, length, asked)
        measured.expected_in = submission.tokens_in
        error: BaseException | None = None
        with self._tracked(call, asked.run_id):
            try:
                self._ready(tries)
                async with AsyncExitStack() as stack:
                    held = self.holding(measured, asked, _demand(request, submission.tokens_in))
                    hold = await call.turn(lambda: stack.enter_async_context(held))
                    submission = replace(submission, priority=self.standings.priority(asked))
                    waiting, call.submitted = self.admissions.slot(submission), True
                    slot = await call.turn(lambda: stack.enter_async_context(waiting))
                    measured.admitted(slot.waited)
                    hold.started = True
                    yield Admitted(call, slot, model, request, submission, hold.most_out)
                if operation != "embeddings":
                    self._sizes[model.name].observe(length, measured.usage)
            except BaseException as caught:
                error = caught
                raise
            finally:
                measured.end(error)

    @contextmanager
    def engine(self, admitted: Admitted, tries: Tries) -> Iterator[Placed]:
        """The engine for a call that has its slot. What comes of it is told to the scheduler and to the breakers."""
        model, slot = admitted.model, admitted.slot
        replicas = self.replicas[model.name]
        prefix = prefix_of(admitted.request, admitted.submission.program) if replicas.several else None
        placed: Placed | None = None
        try:
            with replicas.place(prefix, admitted.submission.tokens_in, tries.avoid) as placed:
                yield placed
            slot.outcome = admitted.call.measured.outcome
        except LLMAgentOSError as error:
            # One of several that is down is its breaker's concern: the others take the model's calls meanwhile.
            slot.outcome = None if replicas.several and broken(error) else refused(error)
            raise
        finally:
            if placed is not None and placed.engine.left:
                self._learn(model.name, placed.engine.left, slot)
            self.admissions.resize(model.name, replicas.slots())

    async def aclose(self) -> None:
        """Close the connections to the engines and store what was metered."""
        for replicas in self.replicas.values():
            await replicas.aclose()
        await self._meter.flush()

    def _submission(self, call_id: str, model: Model, request: Request, length: int, asked: Asked) -> Submission:
        asking = None if isinstance(request, EmbeddingRequest) else request
        size = self._sizes[model.name].of(length, 0 if asking is None else _most_out(asking))
        return Submission(
            call_id,
            model.name,
            str(asked.caller),
            asked.run_id,
            asked.deadline,
            tenant=asked.tenant,
            share=self._shares.get(asked.tenant, 1.0),
            priority=asked.priority,
            program=asked.program,
            tokens_in=size.tokens_in,
            tokens_out=size.tokens_out,
            interruptible=asking is not None and model.capacity.preemptive and interruptible(asking),
        )

    def _learn(self, model: str, left: Mapping[str, float], slot: Slot) -> None:
        self.admissions.learn(model, left)
        if "wait" in left and slot.outcome is not None and slot.outcome.retry_after is None:
            slot.outcome = replace(slot.outcome, retry_after=left["wait"])

    def _ready(self, tries: Tries) -> None:
        """Raises `BreakerOpen` or `QuotaExhausted` when no engine of the model may be sent calls.

        While a call tries whether one works again, those that no fallback takes wait for what comes of it.
        """
        replicas = self.replicas[tries.model.name]
        replicas.called()
        self.admissions.resize(tries.model.name, replicas.slots())
        if not replicas.usable() and not (replicas.probed and not self._fallback(tries)):
            raise replicas.refusal()

    def _fallback(self, tries: Tries) -> bool:
        return any(self.replicas[name].usable() for name in tries.wanted.fallbacks if name not in tries.failed)

    def _changed(self, model: str) -> None:
        """A breaker opened or closed, or the model's process came or went."""
        replicas = self.replicas[model]
        self.admissions.resize(model, replicas.slots())
        if not replicas.usable() and not replicas.probed:
            self.admissions.fail(model, replicas.refusal)
        self.admissions.advance()

    @contextmanager
    def _tracked(self, call: Call, run_id: str | None) -> Iterator[None]:
        if run_id is None:
            yield
            return
        self._runs.setdefault(run_id, set()).add(call)
        try:
            yield
        finally:
            self._runs[run_id].discard(call)
            if not self._runs[run_id]:
                del self._runs[run_id]


def _cancelled(calls: Iterable[Call]) -> int:
    stopped = list(calls)
    for call in stopped:
        call.cancel()
    return len(stopped)


def _most_out(request: Asking) -> int | None:
    return None if request.limit is None else request.limit * request.choices


def _demand(request: Request, tokens_in: int) -> Demand:
    if isinstance(request, EmbeddingRequest):
        return Demand(tokens_in, generates=False)
    return Demand(tokens_in, _most_out(request))


@asynccontextmanager
async def _unlimited(measured: Measurement, _: Asked, demand: Demand) -> AsyncIterator[Hold]:
    yield Hold(measured.id, (), None, None, demand.most_out)

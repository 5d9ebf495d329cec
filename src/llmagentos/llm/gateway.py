"""The gate: every call to a model goes through here, is admitted, metered, and can be stopped.

An answer's chunks are passed on as they come. Whoever stops iterating, or calls `cancel_run`, closes
the connection to the engine, which stops generating. Nothing in the clean-up waits, so that a slot is
free at once however a call ends. What the engine refused or failed before any text came is tried again
where that helps (`llm.tries`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import msgspec

from llmagentos.api.llm import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    EmbeddingRequest,
    Embeddings,
    ModelInfo,
    ModelQueue,
    Purpose,
    Usage,
)
from llmagentos.core.clock import Clock
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.kernel.calls import Submission, Waiting
from llmagentos.kernel.policy import POLICIES, Policy
from llmagentos.kernel.scheduling import PolicyScheduler
from llmagentos.llm import listing
from llmagentos.llm.admission import Admissions, Slot
from llmagentos.llm.asking import Asked, StandingOf, Standings
from llmagentos.llm.assembly import assemble
from llmagentos.llm.budget_calls import Demand, Hold
from llmagentos.llm.call import Call
from llmagentos.llm.directory import Directory, Model, ModelNotFound
from llmagentos.llm.engines.engine import Engine
from llmagentos.llm.failures import broken, refused
from llmagentos.llm.metering import Measurement, Meter
from llmagentos.llm.replicas import Replicas
from llmagentos.llm.residence import keep
from llmagentos.llm.sizes import Sizes, length_of, prefix_of
from llmagentos.llm.tries import Tries
from llmagentos.security.identity import Identity

__all__ = ["TIMEOUT_S", "Gateway", "ModelNotFound"]

TIMEOUT_S = 600.0
OnDelta = Callable[[str, str], None]
Request = ChatRequest | EmbeddingRequest
Holding = Callable[[Measurement, Asked, Demand], AbstractAsyncContextManager[Hold]]
"""Holds what a call may take of its budgets while it is under way."""


class Admitted(NamedTuple):
    """A call that has its slot, and the engine that answers it."""

    call: Call
    slot: Slot
    engine: Engine
    most_out: int | None
    """The most tokens that its budget lets it generate; None when no budget limits it."""


class Gateway:
    """Calls to `models`. `on_delta(run_id, text)` gets the text of a run's answers as it is generated.

    `shares` are the weights of tenants against each other; 1 for those that are not named.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        meter: Meter,
        clock: Clock,
        on_delta: OnDelta,
        policy: Policy = POLICIES["fair"],
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self._models = Directory(models)
        self._meter = meter
        self._clock = clock
        self._on_delta = on_delta
        self._shares = dict(shares or {})
        self._runs: dict[str, set[Call]] = {}
        self._standings = Standings()
        self._holding: Holding = _unlimited
        self._sizes = {model.name: Sizes() for model in models}
        scheduler = PolicyScheduler({m.name: m.capacity for m in models}, policy)
        self._admissions = Admissions(scheduler, [m.name for m in models], clock)
        self._replicas = {model.name: Replicas.of(model, clock) for model in models}
        for name, replicas in self._replicas.items():
            replicas.on_open = partial(self._changed, name)
            if (residence := self._models[name].residence) is not None:
                residence.on_change = replicas.on_open
        listing.export(self._admissions, self._models)

    def know_runs(self, look_up: StandingOf) -> None:
        """From now on calls of runs are ordered by what `look_up` says of the run."""
        self._standings.look_up = look_up

    def use_budgets(self, holding: Holding) -> None:
        """From now on every call holds what it may take before it waits for its slot."""
        self._holding = holding

    async def chat(
        self,
        request: ChatRequest,
        caller: Identity,
        *,
        run_id: str | None = None,
        purpose: Purpose | None = None,
        timeout: float = TIMEOUT_S,
        priority: int | None = None,
    ) -> AsyncGenerator[ChatChunk, None]:
        """The answer in chunks as OpenAI's API streams it, the last one with the usage.

        `timeout` bounds the whole call in seconds. Close the iterator (`contextlib.aclosing`) to stop early.
        `priority` is a nice value; a call of a run has at least the run's. Raises `ModelNotFound`, `QueueFull`,
        `ModelLoading`, `ContextOverflow`, `InvalidInput`, `DeadlineExceeded`, `CallCancelled`, `BreakerOpen`,
        `EngineBusy`, `QuotaExhausted` or a `ModelError`.
        """
        model = self._models.find(request.model, "chat")
        asked = await self._standings.asked(caller, self._clock.monotonic() + timeout, run_id, priority)
        deltas = partial(self._on_delta, run_id) if run_id is not None and purpose == "answer" else None
        tries = Tries(model, asked.deadline)
        while True:
            begun = False
            try:
                async with aclosing(self._answer(request, asked, tries)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                        if deltas is not None and chunk.text:
                            deltas(chunk.text)
                return
            except LLMAgentOSError as error:
                if begun or not self._again(tries, error):
                    raise

    async def complete(
        self,
        request: ChatRequest,
        caller: Identity,
        *,
        run_id: str | None = None,
        purpose: Purpose | None = None,
        timeout: float = TIMEOUT_S,
        priority: int | None = None,
    ) -> ChatCompletion:
        """The whole answer; raises what `chat` does."""
        answer = self.chat(request, caller, run_id=run_id, purpose=purpose, timeout=timeout, priority=priority)
        async with aclosing(answer) as chunks:
            return await assemble(chunks)

    async def embed(
        self,
        request: EmbeddingRequest,
        caller: Identity,
        *,
        run_id: str | None = None,
        timeout: float = TIMEOUT_S,
        priority: int | None = None,
    ) -> Embeddings:
        """The vectors of the inputs as lists of floats; raises what `chat` does."""
        model = self._models.find(request.model, "embedding")
        asked = await self._standings.asked(caller, self._clock.monotonic() + timeout, run_id, priority)
        tries = Tries(model, asked.deadline)
        while True:
            try:
                async with self._call("embeddings", request, asked, tries) as (call, _, engine, _):
                    found = await call.answer(partial(engine.embed, request))
                    call.measured.used(found.usage)
                return found
            except LLMAgentOSError as error:
                if not self._again(tries, error):
                    raise

    def cancel_run(self, run_id: str) -> int:
        """Stop the calls of a run, waiting or running; how many. Their callers get `CallCancelled`."""
        calls = list(self._runs.get(run_id, ()))
        for call in calls:
            call.cancel()
        return len(calls)

    def hold(self, run_id: str) -> None:
        """Pause a run: no call of it or its sub-runs starts; deadlines of waiting calls still run.

        What an engine already answers goes on. Raises `ValueError` when too many runs are held.
        """
        self._admissions.hold(run_id)

    def release(self, run_id: str) -> None:
        """End `hold`: the calls wait in the places they had."""
        self._admissions.release(run_id)

    def renice(self, run_id: str, priority: int) -> None:
        """Give the waiting and later calls of a run and its sub-runs a nice value, -20 (first) to 19 (last)."""
        self._standings.renice(run_id, priority)
        self._admissions.renice(run_id, priority)

    def explain(self, run_id: str) -> Waiting | None:
        """Place and reason of the run's next waiting call; None when none waits. For many runs: `waiting_runs`."""
        return self.waiting_runs().get(run_id)

    def waiting_runs(self) -> dict[str, Waiting]:
        """`explain` for every run that has a call waiting, at the cost of one pass over the queues."""
        return self._admissions.waiting_runs()

    def forget(self, run_id: str) -> None:
        """The run has ended: what is remembered of it, a `hold` too, is dropped."""
        self._standings.forget(run_id)
        self._admissions.forget(run_id)

    def model(self, name: str) -> Model:
        """The model with this name or alias. Raises `ModelNotFound`."""
        return self._models.named(name)

    def busy(self, model: str) -> int:
        """How many calls use a model or wait for it."""
        load = self._admissions.load(model)
        return load.running + load.waiting

    async def keep_models(self) -> None:
        """Follow the processes of this machine's models and drop those that are idle, until cancelled."""
        local = [(m.residence, partial(self.busy, m.name)) for m in self._models if m.residence is not None]
        await keep(local)

    async def describe(self, model: Model) -> ModelInfo:
        """A model and how busy it is."""
        return await listing.model(model, self._admissions, self._replicas[model.name], self._meter)

    async def models(self) -> list[ModelInfo]:
        """Every model and how busy it is."""
        return await listing.models(self._models, self._admissions, self._replicas, self._meter)

    def queues(self, *, most: int) -> list[ModelQueue]:
        """Of every model the calls that run and wait, `most` of each at the longest."""
        return listing.queues(self._models, self._admissions, self._clock, most)

    async def aclose(self) -> None:
        """Close the connections to the engines and store what was metered."""
        for replicas in self._replicas.values():
            await replicas.aclose()
        await self._meter.flush()

    async def _answer(self, request: ChatRequest, asked: Asked, tries: Tries) -> AsyncGenerator[ChatChunk, None]:
        async with self._call("chat", request, asked, tries) as admitted, AsyncExitStack() as stack:
            call, slot, engine, most_out = admitted
            capped = request if most_out is None else msgspec.structs.replace(request, **_capped(request, most_out))
            chunks = await stack.enter_async_context(aclosing(engine.chat(capped, priority=asked.priority)))
            first = True
            async for chunk in call.each(chunks):
                if isinstance(chunk.usage, Usage):
                    call.measured.used(chunk.usage)
                if not chunk.choices:
                    continue
                if chunk.adds:
                    call.measured.piece()
                    slot.produced(1)
                elif first and chunk.choices[0].finish_reason is None:
                    continue  # it only opens the answer: until there is text, another engine can still take over
                yield call.ours(chunk, first=first)
                first = False
            yield call.usage()

    def _again(self, tries: Tries, error: LLMAgentOSError) -> bool:
        usable = {model.name: self._replicas[model.name].usable for model in self._models}
        return tries.after(error, self._clock.monotonic(), models=self._models, usable=lambda name: usable[name]())

    @asynccontextmanager
    async def _call(
        self, operation: Literal["chat", "embeddings"], request: Request, asked: Asked, tries: Tries
    ) -> AsyncIterator[Admitted]:
        """A call that has its slot; metered and given back however the block ends."""
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
                self._ready(model)
                async with AsyncExitStack() as stack:
                    held = self._holding(measured, asked, _demand(request, submission.tokens_in))
                    hold = await call.turn(lambda: stack.enter_async_context(held))
                    waiting = self._admissions.slot(submission)
                    slot = await call.turn(lambda: stack.enter_async_context(waiting))
                    measured.admitted(slot.waited)
                    engine = stack.enter_context(self._placed(model, request, submission, slot, call, tries))
                    hold.started = True
                    yield Admitted(call, slot, engine, hold.most_out)
                if operation == "chat":
                    self._sizes[model.name].observe(length, measured.usage)
            except BaseException as caught:
                error = caught
                raise
            finally:
                measured.end(error)

    def _submission(self, call_id: str, model: Model, request: Request, length: int, asked: Asked) -> Submission:
        most = request.limit if isinstance(request, ChatRequest) else 0
        size = self._sizes[model.name].of(length, most)
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
        )

    @contextmanager
    def _placed(
        self, model: Model, request: Request, submission: Submission, slot: Slot, call: Call, tries: Tries
    ) -> Iterator[Engine]:
        """The engine that has the slot. What comes of the call is told to the scheduler and to the breakers."""
        replicas = self._replicas[model.name]
        prefix = prefix_of(request, submission.program) if replicas.several else None
        engine: Engine | None = None
        try:
            with replicas.place(prefix, submission.tokens_in, tries.avoid) as engine:
                yield engine
            slot.outcome = call.measured.outcome
        except LLMAgentOSError as error:
            # One of several that is down is its breaker's concern: the others take the model's calls meanwhile.
            slot.outcome = None if replicas.several and broken(error) else refused(error)
            raise
        finally:
            if engine is not None and engine.left:
                self._learn(model.name, engine.left, slot)
            self._admissions.resize(model.name, replicas.slots())

    def _learn(self, model: str, left: Mapping[str, float], slot: Slot) -> None:
        self._admissions.learn(model, left)
        if "wait" in left and slot.outcome is not None and slot.outcome.retry_after is None:
            slot.outcome = replace(slot.outcome, retry_after=left["wait"])

    def _ready(self, model: Model) -> None:
        """Raises `BreakerOpen` or `QuotaExhausted` when no engine of the model may be sent calls."""
        replicas = self._replicas[model.name]
        replicas.called()
        self._admissions.resize(model.name, replicas.slots())
        if not replicas.usable():
            raise replicas.refusal()

    def _changed(self, model: str) -> None:
        """A breaker opened, or the model's process came or went."""
        replicas = self._replicas[model]
        self._admissions.resize(model, replicas.slots())
        if not replicas.usable():
            self._admissions.fail(model, replicas.refusal)
        self._admissions.advance()

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


def _demand(request: Request, tokens_in: int) -> Demand:
    if isinstance(request, ChatRequest):
        return Demand(tokens_in, request.limit)
    return Demand(tokens_in, generates=False)


def _capped(request: ChatRequest, most_out: int) -> dict[str, int]:
    """The field with the limit: some engines know only one of the two."""
    return {"max_tokens" if request.max_completion_tokens is None else "max_completion_tokens": most_out}


@asynccontextmanager
async def _unlimited(measured: Measurement, _: Asked, demand: Demand) -> AsyncIterator[Hold]:
    yield Hold(measured.id, (), None, None, demand.most_out)

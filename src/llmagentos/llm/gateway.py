"""The gate: every call to a model goes through here, is admitted, metered, and can be stopped.

An answer's chunks are passed on as they come. Whoever stops iterating, or calls `cancel_run`, closes
the connection to the engine, which stops generating. Nothing in the clean-up waits, so that a slot is
free at once however a call ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from llmagentos.api.llm import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    EmbeddingRequest,
    Embeddings,
    ModelInfo,
    Purpose,
    Usage,
)
from llmagentos.core import metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import InvalidInput, NotFound, nearest
from llmagentos.kernel.policy import POLICIES, Policy
from llmagentos.kernel.scheduling import Capacity, PolicyScheduler, Submission, Waiting
from llmagentos.llm.admission import Admissions
from llmagentos.llm.assembly import assemble
from llmagentos.llm.call import Call
from llmagentos.llm.engines.engine import Engine
from llmagentos.llm.metering import Meter
from llmagentos.security.identity import Identity

DEFAULT = "default"
TIMEOUT_S = 600.0
Use = Literal["chat", "embedding"]
OnDelta = Callable[[str, str], None]


class ModelNotFound(NotFound):
    """No model of this name."""

    code = "model_not_found"


@dataclass(frozen=True, slots=True)
class Model:
    """A model as configured: its engine's driver and what it takes. `silence_s` bounds each wait for a token."""

    name: str
    kind: str
    use: Use
    engine: Engine
    capacity: Capacity
    aliases: tuple[str, ...] = ()
    silence_s: float = 300.0


class Gateway:
    """Calls to `models`. `on_delta(run_id, text)` gets the text of a run's answers as it is generated."""

    def __init__(
        self,
        models: Sequence[Model],
        *,
        meter: Meter,
        clock: Clock,
        on_delta: OnDelta,
        policy: Policy = POLICIES["fair"],
    ) -> None:
        self._models = {model.name: model for model in models}
        scheduler = PolicyScheduler({m.name: m.capacity for m in models}, policy)
        self._admissions = Admissions(scheduler, list(self._models), clock)
        self._meter = meter
        self._clock = clock
        self._on_delta = on_delta
        self._runs: dict[str, set[Call]] = {}
        for name in self._models:
            metrics.LLM_RUNNING.labels(name).set_function(partial(self._running, name))
            metrics.LLM_WAITING.labels(name).set_function(partial(self._waiting, name))

    def _running(self, model: str) -> float:
        return self._admissions.load(model).running

    def _waiting(self, model: str) -> float:
        return self._admissions.load(model).waiting

    async def chat(
        self,
        request: ChatRequest,
        caller: Identity,
        *,
        run_id: str | None = None,
        purpose: Purpose | None = None,
        timeout: float = TIMEOUT_S,
    ) -> AsyncGenerator[ChatChunk, None]:
        """The answer in chunks as OpenAI's API streams it, the last one with the usage.

        `timeout` bounds the whole call in seconds. Close the iterator (`contextlib.aclosing`) to stop early.
        Raises `ModelNotFound`, `QueueFull`, `ModelLoading`, `ContextOverflow`, `InvalidInput`,
        `DeadlineExceeded`, `CallCancelled` or a `ModelError`.
        """
        model = self._find(request.model, "chat")
        deltas = self._on_delta if run_id is not None and purpose == "answer" else None
        async with self._call("chat", model, caller, run_id, timeout) as call, AsyncExitStack() as stack:
            chunks = await stack.enter_async_context(aclosing(model.engine.chat(request)))
            first = True
            async for chunk in call.each(chunks):
                if isinstance(chunk.usage, Usage):
                    call.measured.used(chunk.usage)
                if not chunk.choices:
                    continue
                if chunk.adds:
                    call.measured.piece()
                yield call.ours(chunk, first=first)
                first = False
                if deltas is not None and run_id is not None and chunk.text:
                    deltas(run_id, chunk.text)
            yield call.usage()

    async def complete(
        self,
        request: ChatRequest,
        caller: Identity,
        *,
        run_id: str | None = None,
        purpose: Purpose | None = None,
        timeout: float = TIMEOUT_S,
    ) -> ChatCompletion:
        """The whole answer; raises what `chat` does."""
        async with aclosing(self.chat(request, caller, run_id=run_id, purpose=purpose, timeout=timeout)) as chunks:
            return await assemble(chunks)

    async def embed(
        self, request: EmbeddingRequest, caller: Identity, *, run_id: str | None = None, timeout: float = TIMEOUT_S
    ) -> Embeddings:
        """The vectors of the inputs as lists of floats; raises what `chat` does."""
        model = self._find(request.model, "embedding")
        async with self._call("embeddings", model, caller, run_id, timeout) as call:
            found = await call.answer(lambda: model.engine.embed(request))
            call.measured.used(found.usage)
        return found

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
        """Give the run's waiting and later calls another nice value, -20 (first) to 19 (last)."""
        self._admissions.renice(run_id, priority)

    def explain(self, run_id: str) -> Waiting | None:
        """Place and reason of the run's next waiting call; None when none waits. For many runs: `waiting_runs`."""
        return self.waiting_runs().get(run_id)

    def waiting_runs(self) -> dict[str, Waiting]:
        """`explain` for every run that has a call waiting, at the cost of one pass over the queues."""
        return self._admissions.waiting_runs()

    def forget(self, run_id: str) -> None:
        """The run has ended: what is remembered of it, a `hold` too, is dropped."""
        self._admissions.forget(run_id)

    async def models(self) -> list[ModelInfo]:
        """Every model and how busy it is."""
        models = list(self._models.values())
        found = await asyncio.gather(*(model.engine.status() for model in models))
        infos = []
        for model, status in zip(models, found, strict=True):
            load = self._admissions.load(model.name)
            infos.append(
                ModelInfo(
                    model.name,
                    model.kind,
                    model.use,
                    status.state,
                    list(model.aliases),
                    model.capacity.slots,
                    load.running,
                    load.waiting,
                    model.capacity.queue,
                    status.note,
                )
            )
        return infos

    async def aclose(self) -> None:
        """Close the connections to the engines and store what was metered."""
        for model in self._models.values():
            await model.engine.aclose()
        await self._meter.flush()

    def _find(self, name: str, use: Use) -> Model:
        if (model := self._models.get(name)) is None:
            named = [m for m in self._models.values() if name in m.aliases]
            alike = [m for m in self._models.values() if m.use == use] if name == DEFAULT else []
            fitting = [m for m in named if m.use == use] or alike or named
            if not fitting:
                raise self._not_found(name)
            model = fitting[0]
        if model.use != use:
            raise InvalidInput(f"{name!r} is a model for {model.use}, not for {use}", param="model")
        return model

    def _not_found(self, name: str) -> ModelNotFound:
        known = sorted({*self._models, *(alias for m in self._models.values() for alias in m.aliases)})
        close = nearest(name, known)
        return ModelNotFound(
            f"there is no model {name!r}; there are {', '.join(known) or 'none'}",
            hint=f"did you mean {close!r}?" if close else None,
            param="model",
        )

    @asynccontextmanager
    async def _call(
        self,
        operation: Literal["chat", "embeddings"],
        model: Model,
        caller: Identity,
        run_id: str | None,
        timeout: float,
    ) -> AsyncIterator[Call]:
        """A call that has its slot; metered and given back however the block ends."""
        measured = self._meter.begin(operation, model=model.name, engine=model.kind, caller=str(caller), run_id=run_id)
        deadline = self._clock.monotonic() + timeout
        call = Call(measured, self._clock, deadline=deadline, silence_s=model.silence_s)
        error: BaseException | None = None
        with self._tracked(call, run_id):
            try:
                submission = Submission(measured.id, model.name, str(caller), run_id, deadline)
                async with AsyncExitStack() as stack:
                    slot = self._admissions.slot(submission)
                    measured.admitted(await call.turn(lambda: stack.enter_async_context(slot)))
                    yield call
            except BaseException as caught:
                error = caught
                raise
            finally:
                measured.end(error)

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

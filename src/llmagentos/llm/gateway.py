"""The gate: every call to a model goes through here, is admitted, metered, and can be stopped.

An answer's chunks are passed on as they come. Whoever stops iterating, or calls `cancel_run`, closes
the connection to the engine, which stops generating. Nothing in the clean-up waits, so that a slot is
free at once however a call ends. What the engine refused or failed before any text came is tried again
where that helps (`llm.tries`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    EmbeddingRequest,
    Embeddings,
    ModelInfo,
    ModelQueue,
    Purpose,
)
from llmagentos.core.clock import Clock
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.kernel.calls import Waiting
from llmagentos.kernel.policy import POLICIES, Policy
from llmagentos.llm import listing
from llmagentos.llm.answering import answer
from llmagentos.llm.asking import StandingOf
from llmagentos.llm.assembly import assemble
from llmagentos.llm.call import Interrupted
from llmagentos.llm.directory import Model, ModelNotFound
from llmagentos.llm.generation import Asking
from llmagentos.llm.metering import CallPaused, Meter
from llmagentos.llm.parting import Heard
from llmagentos.llm.passage import Holding, Passage
from llmagentos.llm.residence import keep
from llmagentos.llm.tries import Tries
from llmagentos.security.identity import Identity

__all__ = ["TIMEOUT_S", "Gateway", "ModelNotFound"]

TIMEOUT_S = 600.0
OnDelta = Callable[[str, str], None]


class Gateway:
    """Calls to `models`.

    `shares` are the weights of tenants against each other; 1 for those that are not named.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        meter: Meter,
        clock: Clock,
        policy: Policy = POLICIES["fair"],
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self._meter = meter
        self._clock = clock
        self._on_delta: OnDelta = lambda *_: None
        self._passage = Passage(models, meter=meter, clock=clock, policy=policy, shares=shares or {})
        self._models = self._passage.models
        self._standings = self._passage.standings
        self._admissions = self._passage.admissions
        listing.export(self._admissions, self._models)

    def know_runs(self, look_up: StandingOf) -> None:
        """From now on calls of runs are ordered by what `look_up` says of the run."""
        self._standings.look_up = look_up

    def tell_pieces(self, told: OnDelta) -> None:
        """From now on `told` gets the text of runs' answers as it is generated."""
        self._on_delta = told

    def tell_changes(self, told: Callable[[], None]) -> None:
        """From now on `told` hears when `models` or `queues` have something new: a model of this machine came into
        another state, an engine failed, calls came, began or ended."""
        self._admissions.on_change = told

    def use_budgets(self, holding: Holding) -> None:
        """From now on every call holds what it may take before it waits for its slot."""
        self._passage.holding = holding

    def chat(
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
        return self._generate(request, caller, run_id, purpose, timeout, priority)

    def write(
        self,
        request: CompletionRequest,
        caller: Identity,
        *,
        run_id: str | None = None,
        purpose: Purpose | None = None,
        timeout: float = TIMEOUT_S,
        priority: int | None = None,
    ) -> AsyncGenerator[ChatChunk, None]:
        """How one prompt goes on, in the chunks of a chat. Raises what `chat` does, and `NoCompletions`."""
        return self._generate(request, caller, run_id, purpose, timeout, priority)

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
        end = self._clock.monotonic() + timeout
        while True:
            left = end - self._clock.monotonic()
            given = self._generate(request, caller, run_id, purpose, left, priority, heard=False)
            try:
                async with aclosing(given) as chunks:
                    return await assemble(chunks)
            except CallPaused:  # nobody has heard any of it
                continue

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
                async with self._passage.call("embeddings", request, asked, tries) as admitted:
                    with self._passage.engine(admitted, tries) as placed:
                        try:
                            found = await admitted.call.answer(partial(placed.engine.embed, request))
                        except Interrupted:
                            if admitted.call.asked:
                                admitted.call.measured.cut()
                            raise
                        admitted.call.measured.used(found.usage)
                return found
            except Interrupted:  # paused: it waits at the gate, and is made again
                continue
            except LLMAgentOSError as error:
                if not self._passage.again(tries, error):
                    raise

    def cancel_run(self, run_id: str) -> int:
        """Stop the calls of a run, waiting or running; how many. Their callers get `CallCancelled`."""
        return self._passage.cancel_run(run_id)

    def hold(self, run_id: str) -> None:
        """Pause a run: no call of it or its sub-runs starts, and engines stop working on its own.

        Its streams stand still until `release`; their deadlines still run. What an engine cannot continue is cut off,
        paid, and made anew. Raises `ValueError` when too many runs are held.
        """
        self._passage.hold(run_id)

    def put_down(self, run_id: str, *, everything: bool = False) -> int:
        """Of a run that is held, stop the calls that wait for an engine or have one, or `everything`; how many.

        Their callers get `CallCancelled`. The same request of the same run goes on, later, where it was stopped.
        """
        return self._passage.put_down(run_id, everything=everything)

    def release(self, run_id: str) -> None:
        """End `hold`: the calls wait in the places they had."""
        self._passage.release(run_id)

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
        """The run has ended: what is remembered of it, a `hold` too, is dropped. Calls that come late are refused."""
        self._standings.forget(run_id)
        self._admissions.forget(run_id)
        self._passage.ended(run_id)

    def model(self, name: str) -> Model:
        """The model with this name or alias. Raises `ModelNotFound`."""
        return self._models.named(name)

    def chat_model(self, name: str) -> Model:
        """The chat model with this name or alias. Raises `ModelNotFound`, or `InvalidInput` for one of another use."""
        return self._models.find(name, "chat")

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
        return await listing.model(model, self._admissions, self._passage.replicas[model.name], self._meter)

    async def models(self) -> list[ModelInfo]:
        """Every model and how busy it is."""
        return await listing.models(self._models, self._admissions, self._passage.replicas, self._meter)

    def queues(self, *, most: int) -> list[ModelQueue]:
        """Of every model the calls that run and wait, `most` of each at the longest."""
        return listing.queues(self._models, self._admissions, self._clock, most)

    async def aclose(self) -> None:
        """Close the connections to the engines and store what was metered."""
        await self._passage.aclose()

    async def _generate(
        self,
        request: Asking,
        caller: Identity,
        run_id: str | None,
        purpose: Purpose | None,
        timeout: float,
        priority: int | None,
        *,
        heard: bool = True,
    ) -> AsyncGenerator[ChatChunk, None]:
        """With `heard` whoever reads the chunks passes them on, and never gets the same text twice."""
        model = self._models.find(request.model, "chat")
        if isinstance(request, CompletionRequest) and request.echo and model.kind != "openai":
            raise InvalidInput(f"the engine of {model.name!r} does not repeat the prompt", param="echo")
        asked = await self._standings.asked(caller, self._clock.monotonic() + timeout, run_id, priority)
        deltas = partial(self._on_delta, run_id) if run_id is not None and purpose == "answer" else None
        tries = Tries(model, asked.deadline)
        told = Heard() if run_id is not None and heard else None
        while True:
            begun = False
            try:
                async with aclosing(answer(self._passage, request, asked, tries)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        new = chunk if told is None else told.passed(chunk)
                        if new is None:
                            continue
                        yield new
                        if deltas is not None and new.text:
                            deltas(new.text)
                return
            except CallPaused:
                if told is None:
                    raise
                told.again()
            except LLMAgentOSError as error:
                if begun or not self._passage.again(tries, error):
                    raise

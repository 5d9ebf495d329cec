"""What each call took: tokens and times into metrics, a span, and one row in storage.

Metric and attribute names are those of OpenTelemetry's conventions for generative AI where there is
one. Rows are written in batches beside the calls; when storage fails they wait, up to a limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from msgspec.structs import replace

from llmagentos.api.llm import CallInfo, Usage, Waits
from llmagentos.core import log, metrics, tracing
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, LLMAgentOSError, Unavailable
from llmagentos.core.ids import new_id
from llmagentos.kernel.calls import Outcome
from llmagentos.llm.rates import Rate

FLUSH_S = 0.25
_KEPT = 10_000
_BATCH = 500

_log = log.get(__name__)

Operation = Literal["chat", "text_completion", "embeddings"]
Store = Callable[[Sequence[CallInfo]], Awaitable[None]]


class Meter:
    """Begins measurements and stores what they found."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ended: deque[CallInfo] = deque(maxlen=_KEPT)
        self._untold: deque[CallInfo] = deque(maxlen=_KEPT)
        self._rates: dict[str, Rate] = {}
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()
        self.told: list[Store] = []
        """Get the records of calls after they were stored, again when one raises `Unavailable`."""

    def begin(self, operation: Operation, *, model: str, engine: str, caller: str, run_id: str | None) -> Measurement:
        """Start to measure a call."""
        return Measurement(self, self._clock, operation, model=model, engine=engine, caller=caller, run_id=run_id)

    def generated(self, model: str, tokens: int) -> None:
        """Tokens came out of a model."""
        self._rates.setdefault(model, Rate()).add(tokens, self._clock.monotonic())

    def tokens_per_s(self, model: str) -> float:
        """How many came out of it in the last minute, a second."""
        rate = self._rates.get(model)
        return 0.0 if rate is None else rate.per_second(self._clock.monotonic())

    def ended(self, call: CallInfo) -> None:
        """Take the record of a call that ended; it is stored within `FLUSH_S` seconds."""
        self._ended.append(call)
        self._wake.set()

    async def run(self) -> None:
        """Store records as they come, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(FLUSH_S)
            self._wake.clear()
            try:
                await self.flush()
            except Exception as error:  # the loop that keeps the records until storage works again
                _log.error("calls not stored", waiting=len(self._ended), error=str(error))
                self._wake.set()

    async def flush(self) -> None:
        """Store what has not been stored. Raises storage's errors, and keeps the records then."""
        async with self._flushing:
            while self._ended:
                batch = [self._ended[i] for i in range(min(_BATCH, len(self._ended)))]
                if left := [call for call in batch if call.budget is None]:  # others were stored with what they cost
                    await self._store(left)
                for call in batch:
                    if self._ended and self._ended[0] is call:  # the oldest may have been dropped meanwhile
                        self._ended.popleft()
                self._untold += batch
                await self._tell()
            await self._tell()

    async def _tell(self) -> None:
        while self._untold:
            call = self._untold.popleft()
            try:
                for told in self.told:
                    await told([call])
            except Unavailable:
                self._untold.appendleft(call)
                raise


class Measurement:
    """One call from its arrival to its end."""

    def __init__(
        self,
        meter: Meter,
        clock: Clock,
        operation: Operation,
        *,
        model: str,
        engine: str,
        caller: str,
        run_id: str | None,
    ) -> None:
        self.id = new_id()
        self.model = model
        self.run_id = run_id
        self.expected_in = 0
        """What the prompt takes when the engine answers without saying it."""
        self.earlier = Usage()
        """What calls before this one took of the answer that it goes on with."""
        self.cut_off = False
        """It was stopped in the middle, as its run was paused."""
        self._prompt_read = False
        self._meter = meter
        self._clock = clock
        self._operation = operation
        self._engine = engine
        self._caller = caller
        self._at = clock.time()
        self._begun = clock.monotonic()
        self._queue_s = 0.0
        self._ttft_s: float | None = None
        self._pieces = 0
        self._suspensions = 0
        self._suspended_s = 0.0
        self._usage: Usage | None = None
        self._record: CallInfo | None = None
        self._span = tracing.begin(
            f"{operation} {model}",
            kind=tracing.CLIENT,
            gen_ai__operation__name=operation,
            gen_ai__provider__name=engine,
            gen_ai__request__model=model,
            llmagentos__run_id=run_id,
        )

    def cut(self) -> None:
        """It was stopped in the middle, as its run was paused: what the engine was asked is paid."""
        self.cut_off = self._prompt_read = True

    def admitted(self, waited: float) -> None:
        """It got its slot after `waited` seconds."""
        self._queue_s = waited
        metrics.LLM_QUEUE.labels(self.model).observe(waited)

    def suspended(self) -> None:
        """It gave its slot to a more urgent call."""
        if self._span is not None:
            self._span.add_event("suspended", {"llmagentos.tokens": self._pieces})

    def resumed(self, waited: float) -> None:
        """It has a slot again, after `waited` seconds more."""
        self._suspended_s += waited
        self._suspensions += 1
        if self._span is not None:
            self._span.add_event("resumed", {"llmagentos.queue_s": waited})

    def piece(self, tokens: int = 1) -> None:
        """The engine sent a piece of the answer."""
        self._pieces += tokens
        self._meter.generated(self.model, tokens)
        if self._ttft_s is None:
            self._ttft_s = self._clock.monotonic() - self._begun

    def used(self, usage: Usage) -> None:
        """The engine said what the call took."""
        self._usage = usage

    @property
    def usage(self) -> Usage:
        """What the answer took; when the engine did not say, what came was counted."""
        if self._usage is not None:
            return self._usage
        before = self.earlier
        if before.total_tokens:
            return Usage(
                before.prompt_tokens, before.completion_tokens + self._pieces, before.total_tokens + self._pieces
            )
        tokens_in = self.expected_in if self._pieces or self._prompt_read else 0
        return Usage(tokens_in, self._pieces, tokens_in + self._pieces)

    @property
    def spent(self) -> Usage:
        """What of it this call took: all, unless it goes on with what an earlier one began."""
        whole, before = self.usage, self.earlier
        given = max(0, whole.prompt_tokens - before.prompt_tokens)
        made = max(0, whole.completion_tokens - before.completion_tokens)
        return Usage(given, made, given + made)

    @property
    def outcome(self) -> Outcome:
        """What the scheduler learns of a call that went well."""
        tokens_in = self._usage.prompt_tokens if self._usage is not None else None
        ttft = None if self._ttft_s is None else max(0.0, self._ttft_s - self._queue_s)
        return Outcome(tokens_in, self.spent.completion_tokens, ttft)

    @property
    def waits(self) -> Waits:
        """How long it waited."""
        return Waits(
            round(self._queue_s + self._suspended_s, 4), None if self._ttft_s is None else round(self._ttft_s, 4)
        )

    def charged(self, error: BaseException | None, budget: str, tokens: int, money: int) -> CallInfo:
        """It is over, and so much was counted: its record, which whoever counted it stores with that."""
        self._record = replace(self.record(error), budget=budget, charged=tokens, money=money)
        return self._record

    def end(self, error: BaseException | None) -> None:
        """It is over; with `error` it failed or was cancelled."""
        call = self._record or self.record(error)
        if call.tokens_out != self._pieces:  # a piece may be several tokens, or a part of one
            self._meter.generated(self.model, call.tokens_out - self._pieces)
        self._observe(call, _error_type(error))
        self._meter.ended(call)
        _log.debug("call", model=self.model, status=call.status, tokens=call.tokens_out, s=round(call.duration_s, 4))

    def record(self, error: BaseException | None) -> CallInfo:
        """What is known of it now."""
        return CallInfo(
            self.id,
            self._at,
            self.model,
            self._engine,
            self._operation,
            self._caller,
            "cut_off" if self.cut_off else _status(error),
            self.spent.prompt_tokens,
            self.spent.completion_tokens,
            self._queue_s + self._suspended_s,
            self._clock.monotonic() - self._begun,
            self._ttft_s,
            self.run_id,
            error.message if isinstance(error, LLMAgentOSError) else None,
        )

    def _observe(self, call: CallInfo, error_type: str) -> None:
        labels = (self._operation, self._engine, self.model)
        metrics.GEN_AI_DURATION.labels(*labels, error_type).observe(call.duration_s)
        metrics.GEN_AI_TOKENS.labels(*labels, "input").observe(call.tokens_in)
        metrics.GEN_AI_TOKENS.labels(*labels, "output").observe(call.tokens_out)
        if call.ttft_s is not None:
            metrics.GEN_AI_FIRST_TOKEN.labels(*labels).observe(call.ttft_s)
            if call.tokens_out > 1:
                per_token = (call.duration_s - call.ttft_s - self._suspended_s) / (call.tokens_out - 1)
                metrics.GEN_AI_PER_TOKEN.labels(*labels).observe(per_token)
        if self._span is not None:
            self._span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": call.tokens_in,
                    "gen_ai.usage.output_tokens": call.tokens_out,
                    "llmagentos.queue_s": call.queue_s,
                    "llmagentos.preemptions": self._suspensions,
                }
            )
            if error_type:
                self._span.set_attribute("error.type", error_type)
            self._span.end()


def _status(error: BaseException | None) -> Literal["succeeded", "failed", "cancelled"]:
    if error is None:
        return "succeeded"
    cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit | CallCancelled)
    return "cancelled" if cancelled else "failed"


def _error_type(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, LLMAgentOSError):
        return error.code
    return "cancelled" if _status(error) == "cancelled" else "internal"


class CallCancelled(Conflict):
    """The call was cancelled with its run, or because its run was paused."""

    code = "call_cancelled"


class CallPaused(CallCancelled):
    """The call was cut off because its run was paused, and what there was of the answer cannot be continued."""

    code = "call_paused"

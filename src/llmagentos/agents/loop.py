"""The run loop: ask what comes next, do it, append what came of it.

Everything that was learnt is in the log before the next step is decided, so the loop can stop at any
point and go on anywhere. What was begun but not answered when a host was lost is begun again (model
calls), or decided by whether it may be (tool calls).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from llmagentos.agents import routing
from llmagentos.agents.attachments import texts
from llmagentos.agents.calling import Ask, Calls, Fail
from llmagentos.agents.decide import Answer, CallModel, Rank, Step, decide
from llmagentos.agents.log import Log, apply
from llmagentos.agents.making import Calling, told
from llmagentos.agents.model import Models
from llmagentos.agents.redacting import Redacting
from llmagentos.agents.tools import Toolset
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import (
    Answered,
    ApprovalRequested,
    Data,
    Failed,
    ModelCalled,
    ModelReplied,
    Purpose,
    RunEvent,
)
from llmagentos.core.errors import Conflict, DeadlineExceeded, LLMAgentOSError, TooManyRequests, Unavailable
from llmagentos.llm.engines.engine import EngineLost, EngineUnreachable, QuotaExhausted

Add = Callable[[Sequence[Data]], Awaitable[Sequence[RunEvent]]]
"""Appends to the run's log; raises `Conflict` when the run is no longer ours."""

RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before a model that is not there (yet) is called again."""
_DATABASE_AWAY = "storage_unavailable"
"""The code of `storage.database.StorageUnavailable`: modules, which carry runs on too, have no database package."""
_EMBEDDING = "embedding"


class Loop:
    """Carries one run on to its end, or until it waits for a person."""

    def __init__(
        self,
        run: str,
        spec: AgentSpec,
        tools: Toolset,
        models: Models,
        add: Add,
        *,
        values: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._run = run
        self._spec = spec
        self._tools = tools
        self._models = models
        self._add = add
        self._end = 0.0
        self._log = Log()
        self._appending = asyncio.Lock()
        self._redacting = Redacting(spec, values)

    async def carry_on(self, log: Log, events: Sequence[RunEvent]) -> Log:
        """From `log`, which `events` add up to, to the end, or to a question to a person.

        Raises `Conflict` when the run was taken away, and never anything of the agent's.
        """
        self._log = log
        self._redacting.learn(events, texts(log.attached.values()))
        self._end = time.monotonic() + self._spec.limits.timeout - log.active_s
        while (step := decide(self._spec, self._tools, self._log)) is not None:
            if isinstance(step, Calls | CallModel | Rank) and self._left() <= 0:
                step = Fail(f"no answer within {self._spec.limits.timeout:g} s (limits.timeout)", "limit_timeout")
            await self._do(step)
        return self._log

    def _left(self) -> float:
        return self._end - time.monotonic()

    async def _append(self, *data: Data) -> None:
        """One after the other, as calls end at the same time."""
        async with self._appending:
            self._redacting.learn(data)
            for event in await self._add(data):
                self._log = apply(self._log, event)

    async def _do(self, step: Step) -> None:
        match step:
            case Calls():
                calling = Calling(self._run, self._tools, self._append, self._left, self._redacting.arguments)
                await calling.make(step)
            case Ask():
                asked = [
                    ApprovalRequested(each.call_id, each.name, each.arguments, each.timeout) for each in step.questions
                ]
                await self._append(*asked)
            case CallModel():
                await self._call_model(step)
            case Rank():
                await self._rank(step)
            case Answer():
                answered = Answered(step.text, step.sources, step.replaced, step.output)
                await self._append(self._redacting.answer(answered))
            case Fail():
                await self._append(Failed(step.error, step.code))

    # Models ---------------------------------------------------------------------------------------

    async def _call_model(self, step: CallModel) -> None:
        prompt = self._redacting.prompt(step.prompt)
        await self._append(ModelCalled(prompt.purpose, prompt.model, prompt.covers))
        begun = time.monotonic()
        try:
            reply = await self._patiently(
                lambda: self._models.complete(prompt, run=self._run, timeout=max(0.001, self._left()))
            )
        except Conflict:  # the run was taken away from here: the call is made again by whoever carries it on
            raise
        except LLMAgentOSError as error:
            await self._append(self._failed(error))
            return
        reply = self._redacting.reply(reply)
        await self._append(
            ModelReplied(
                prompt.purpose,
                reply.text,
                reply.tokens_in,
                reply.tokens_out,
                round(reply.queue_s, 4),
                round(reply.ttft_s, 4),
                round(time.monotonic() - begun, 4),
                reply.cut,
                list(reply.calls),
            ),
        )

    async def _rank(self, step: Rank) -> None:
        await self._append(ModelCalled(Purpose.ROUTE, _EMBEDDING))
        begun = time.monotonic()
        texts = [text for tool in self._tools.tools for text in routing.texts(tool)]
        try:
            request = await self._embed([self._redacting.text(step.request)], "query")
            vectors = await self._embed(texts, "passage")
        except Conflict:
            raise
        except LLMAgentOSError as error:
            await self._append(self._failed(error))
            return
        ranking = msgspec.json.encode(routing.rank(request[0], self._tools.tools, vectors)).decode()
        took = round(time.monotonic() - begun, 4)
        await self._append(ModelReplied(Purpose.ROUTE, ranking, duration_s=took))

    async def _embed(self, texts: Sequence[str], kind: Any) -> list[list[float]]:
        vectors: list[list[float]] = await self._patiently(
            lambda: self._models.embed(texts, kind=kind, run=self._run, timeout=max(0.001, self._left()))
        )
        return vectors

    async def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """`call`, again after a while when the model is busy, loading or restarting: it leaves nothing behind.

        Not when its quota is used up: nobody knows for how long. As long as it takes when it is the database that is
        away, as all else waits for that too.
        """
        waits = list(RETRY_S)
        while True:
            try:
                return await call()
            except (Unavailable, TooManyRequests, EngineLost, EngineUnreachable) as error:
                away = error.code == _DATABASE_AWAY
                if error.code == QuotaExhausted.code or not (waits or away):
                    raise
                wait = RETRY_S[-1] if away else waits.pop(0)
                wanted = error.retry_after if isinstance(error, TooManyRequests) else wait
                if wanted >= self._left():
                    raise
            await asyncio.sleep(wanted)

    def _failed(self, error: LLMAgentOSError) -> Failed:
        if isinstance(error, DeadlineExceeded) and self._left() <= 0:
            return Failed(f"no answer within {self._spec.limits.timeout:g} s (limits.timeout)", "limit_timeout")
        return Failed(told(error), error.code)

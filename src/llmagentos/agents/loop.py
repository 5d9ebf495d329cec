"""The run loop: ask what comes next, do it, append what came of it.

Everything that was learnt is in the log before the next step is decided, so the loop can stop at any
point and go on anywhere. What was begun but not answered when a host was lost is begun again (model
calls), or decided by whether it may be (tool calls).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from llmagentos.agents import routing
from llmagentos.agents.decide import Answer, CallModel, CallTool, Fail, GiveUpTool, Rank, Step, decide
from llmagentos.agents.log import Log, apply
from llmagentos.agents.model import Models
from llmagentos.agents.tools import CalledBy, Tool, Toolset
from llmagentos.api.agents import MAX_RESULT, AgentSpec
from llmagentos.api.runs import (
    Answered,
    Data,
    Failed,
    ModelCalled,
    ModelReplied,
    Purpose,
    RunEvent,
    ToolAnswered,
    ToolCalled,
)
from llmagentos.core import metrics, tracing
from llmagentos.core.errors import (
    Conflict,
    DeadlineExceeded,
    LLMAgentOSError,
    ServiceError,
    TooManyRequests,
    Unavailable,
)

Add = Callable[[Sequence[Data]], Awaitable[Sequence[RunEvent]]]
"""Appends to the run's log; raises `Conflict` when the run is no longer ours."""

RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before a model that is not there (yet) is called again."""
_EMBEDDING = "embedding"


class Loop:
    """Carries one run on to its end."""

    def __init__(self, run: str, spec: AgentSpec, tools: Toolset, models: Models, add: Add) -> None:
        self._run = run
        self._spec = spec
        self._tools = tools
        self._models = models
        self._add = add
        self._end = 0.0

    async def carry_on(self, log: Log) -> Log:
        """From `log` to the end. Raises `Conflict` when the run was taken away, and never anything of the agent's."""
        self._end = time.monotonic() + self._spec.limits.timeout - log.active_s
        while (step := decide(self._spec, self._tools, log)) is not None:
            if isinstance(step, CallTool | CallModel | Rank) and self._left() <= 0:
                step = Fail(f"no answer within {self._spec.limits.timeout:g} s (limits.timeout)", "limit_timeout")
            log = await self._do(step, log)
        return log

    def _left(self) -> float:
        return self._end - time.monotonic()

    async def _append(self, log: Log, *data: Data) -> Log:
        for event in await self._add(data):
            log = apply(log, event)
        return log

    async def _do(self, step: Step, log: Log) -> Log:
        match step:
            case CallTool():
                return await self._call_tool(step, log)
            case CallModel():
                return await self._call_model(step, log)
            case Rank():
                return await self._rank(step, log)
            case GiveUpTool():
                return await self._append(log, ToolAnswered(step.call_id, error=step.error))
            case Answer():
                return await self._append(log, Answered(step.text, step.sources, step.replaced))
            case Fail():
                return await self._append(log, Failed(step.error, step.code))

    # Models ---------------------------------------------------------------------------------------

    async def _call_model(self, step: CallModel, log: Log) -> Log:
        prompt = step.prompt
        log = await self._append(log, ModelCalled(prompt.purpose, prompt.model))
        begun = time.monotonic()
        try:
            reply = await self._patiently(
                lambda: self._models.complete(prompt, run=self._run, timeout=max(0.001, self._left()))
            )
        except Conflict:  # the run was taken away from here: the call is made again by whoever carries it on
            raise
        except LLMAgentOSError as error:
            return await self._append(log, self._failed(error))
        return await self._append(
            log,
            ModelReplied(
                prompt.purpose,
                reply.text,
                reply.tokens_in,
                reply.tokens_out,
                round(reply.queue_s, 4),
                round(reply.ttft_s, 4),
                round(time.monotonic() - begun, 4),
                reply.cut,
            ),
        )

    async def _rank(self, step: Rank, log: Log) -> Log:
        log = await self._append(log, ModelCalled(Purpose.ROUTE, _EMBEDDING))
        begun = time.monotonic()
        texts = [text for tool in self._tools.tools for text in routing.texts(tool)]
        try:
            request = await self._embed([step.request], "query")
            vectors = await self._embed(texts, "passage")
        except Conflict:
            raise
        except LLMAgentOSError as error:
            return await self._append(log, self._failed(error))
        ranking = msgspec.json.encode(routing.rank(request[0], self._tools.tools, vectors)).decode()
        took = round(time.monotonic() - begun, 4)
        return await self._append(log, ModelReplied(Purpose.ROUTE, ranking, duration_s=took))

    async def _embed(self, texts: Sequence[str], kind: Any) -> list[list[float]]:
        vectors: list[list[float]] = await self._patiently(
            lambda: self._models.embed(texts, kind=kind, run=self._run, timeout=max(0.001, self._left()))
        )
        return vectors

    async def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """`call`, again after a while when the model is busy, loading or restarting."""
        for wait in RETRY_S:
            try:
                return await call()
            except (Unavailable, TooManyRequests) as error:
                wanted = error.retry_after if isinstance(error, TooManyRequests) else wait
                if wanted >= self._left():
                    raise
                await asyncio.sleep(wanted)
        return await call()

    def _failed(self, error: LLMAgentOSError) -> Failed:
        if isinstance(error, DeadlineExceeded) and self._left() <= 0:
            return Failed(f"no answer within {self._spec.limits.timeout:g} s (limits.timeout)", "limit_timeout")
        return Failed(_told(error), error.code)

    # Tools ----------------------------------------------------------------------------------------

    async def _call_tool(self, step: CallTool, log: Log) -> Log:
        if not step.again:
            try:
                log = await self._append(log, ToolCalled(step.call_id, step.name, step.arguments))
            except TooManyRequests as error:  # its budget allows no more of them
                return await self._append(log, self._failed(error))
        begun = time.monotonic()
        with tracing.span(
            f"execute_tool {step.name}", gen_ai__operation__name="execute_tool", gen_ai__tool__name=step.name
        ):
            result, failed = await self._invoke(self._tools.get(step.name), step)
        took = time.monotonic() - begun
        metrics.TOOL_SECONDS.labels("error" if failed else "ok").observe(took)
        return await self._append(log, ToolAnswered(step.call_id, result, failed, round(took, 4)))

    async def _invoke(self, tool: Tool | None, step: CallTool) -> tuple[Any, str | None]:
        """The result, or else what went wrong: whatever a tool raises is an answer to the agent."""
        if tool is None:
            return None, f"there is no tool {step.name!r} any more"
        try:
            result = await tool.invoke(step.arguments, max(0.001, self._left()), CalledBy(self._run, step.call_id))
            size = len(msgspec.json.encode(result))
        except ServiceError as error:
            return None, f"{error.remote_type}: {error.message}" if error.remote_type else error.message
        except LLMAgentOSError as error:
            return None, _told(error)
        except TimeoutError:
            return None, "no result in time"
        except Exception as error:  # a Python tool may raise anything
            return None, f"{type(error).__name__}: {error}"
        if size > MAX_RESULT:
            return None, f"the result has {size} bytes, more than {MAX_RESULT}"
        return result, None


def _told(error: LLMAgentOSError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message

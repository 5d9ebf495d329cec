"""Tool calls as they are made: several at once, each in its time, again when that is safe, with a bounded result.

That a call began and how it ended are two events of its own, so that whoever carries the run on after a
crash knows of each call whether it was settled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from llmagentos.agents.calling import Calls, CallTool, GiveUpTool, RefuseTool
from llmagentos.agents.grounding import CALL_ID
from llmagentos.agents.tools import CalledBy, OutcomeUnknown, Tool, Toolset, ToolSuspended
from llmagentos.api.runs import Data, Failed, ToolAnswered, ToolCalled, ToolRefused
from llmagentos.core import metrics, tracing
from llmagentos.core.errors import CallerError, Conflict, Forbidden, LLMAgentOSError, ServiceError, TooManyRequests
from llmagentos.core.lifecycle import Backoff

RETRY_FIRST_S = 0.5
RETRY_MOST_S = 10.0


class Append(Protocol):
    """Adds to the run's log; raises `Conflict` when the run is no longer ours."""

    async def __call__(self, *data: Data) -> None: ...


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A result, or else what went wrong; `final` when another try would go wrong too."""

    result: Any = None
    error: str | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class Calling:
    """Makes calls of `tools` for `run`, which has `left()` seconds left."""

    run: str
    tools: Toolset
    append: Append
    left: Callable[[], float]
    plain: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda arguments: arguments
    """Arguments as the tool gets them, from what the log has."""

    async def make(self, calls: Calls) -> None:
        """All of them. When the run may begin no more (it was paused), those under way are still ended and noted.

        Raises `Conflict` then, and when the run was taken away.
        """
        stopped: list[Conflict | Forbidden | TooManyRequests | OutcomeUnknown] = []
        slots = asyncio.Semaphore(calls.at_once)

        async def one(step: CallTool) -> None:
            async with slots:
                if stopped:
                    return
                try:
                    await self._call(step)
                except (Conflict, Forbidden, TooManyRequests, OutcomeUnknown) as error:
                    stopped.append(error)

        for step in calls.steps:  # before any call is under way, which a `Conflict` here would cut off
            match step:
                case RefuseTool():
                    await self.append(ToolRefused(step.call_id, step.name, step.arguments, step.error))
                case GiveUpTool():
                    await self.append(ToolAnswered(step.call_id, error=step.error))
        async with asyncio.TaskGroup() as group:
            for step in calls.steps:
                if isinstance(step, CallTool):
                    group.create_task(one(step))
        for error in stopped:
            if isinstance(error, Conflict):
                raise error
        if stopped:  # its budget allows no more of them, or its caller may not, or a tool says `interrupted: fail`
            await self.append(Failed(told(stopped[0]), stopped[0].code))

    async def _call(self, step: CallTool) -> None:
        if not step.again:
            await self.append(ToolCalled(step.call_id, step.name, step.arguments))
        begun = time.monotonic()
        with tracing.span(
            f"execute_tool {step.name}", gen_ai__operation__name="execute_tool", gen_ai__tool__name=step.name
        ):
            tool = self.tools.get(step.name)
            outcome = _Outcome(error=f"there is no tool {step.name!r} any more")
            if tool is not None:
                outcome = await self._tried(tool, step)
        took = time.monotonic() - begun
        metrics.TOOL_SECONDS.labels("error" if outcome.error else "ok").observe(took)
        await self.append(ToolAnswered(step.call_id, outcome.result, outcome.error, round(took, 4)))

    async def _tried(self, tool: Tool, step: CallTool) -> _Outcome:
        """The outcome of the last try: there are further ones only for tools that may be called again."""
        backoff = Backoff(first=RETRY_FIRST_S, most=RETRY_MOST_S)
        for _ in range(tool.options.retries):
            outcome = await self._invoke(tool, step)
            wait = backoff.died(0.0)
            if outcome.error is None or outcome.final or wait >= self.left():
                return outcome
            metrics.TOOL_RETRIES.inc()
            await asyncio.sleep(wait)
        return await self._invoke(tool, step)

    async def _invoke(self, tool: Tool, step: CallTool) -> _Outcome:
        """Whatever a tool raises is an answer to the agent."""
        timeout = max(0.001, min(self.left(), tool.options.timeout or self.left()))
        outcome = await self._outcome(tool, step, timeout)
        if outcome.error is not None:
            outcome = replace(outcome, error=_cut(outcome.error.encode(), tool.options.result_bytes))
        return outcome

    async def _outcome(self, tool: Tool, step: CallTool, timeout: float) -> _Outcome:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                result = await tool.invoke(
                    self.plain(step.arguments), timeout, CalledBy(self.run, step.call_id, step.again)
                )
            return _bounded(result, tool.options.result_bytes, records=step.call_id == CALL_ID)
        except ServiceError as error:
            return _Outcome(error=f"{error.remote_type}: {error.message}" if error.remote_type else error.message)
        except ToolSuspended:
            raise
        except OutcomeUnknown as error:
            if tool.options.interrupted == "fail":
                raise
            return _Outcome(error=told(error), final=True)
        except LLMAgentOSError as error:
            final = isinstance(error, CallerError) and not isinstance(error, TooManyRequests)
            return _Outcome(error=told(error), final=final)
        except TimeoutError as error:
            if time.monotonic() - begun < 0.9 * timeout:  # the tool's own, of something that it waited for
                return _Outcome(error=f"{type(error).__name__}: {error}")
            more = "" if tool.idempotent else ": whether it was carried out is not known"
            return _Outcome(error=f"no result within {timeout:.3g} s{more}")
        except Exception as error:  # a Python tool may raise anything
            return _Outcome(error=f"{type(error).__name__}: {error}")


def _bounded(result: Any, most: int, *, records: bool) -> _Outcome:
    """`result` with at most `most` bytes of JSON; what is cut is a text that says so. `records` are not cut."""
    encoded = msgspec.json.encode(result)
    if len(encoded) <= most:
        return _Outcome(result)
    if records:
        return _Outcome(error=f"the result has {len(encoded)} bytes, more than {most}", final=True)
    return _Outcome(_cut(result.encode() if isinstance(result, str) else encoded, most))


def _cut(text: bytes, most: int) -> str:
    """The first `most` bytes of `text`, which then says so."""
    kept = text[:most].decode(errors="ignore")
    return kept if len(text) <= most else f"{kept}\n[cut: these are the first {most} of {len(text)} bytes]"


def told(error: LLMAgentOSError) -> str:
    """The error as the model and people read it."""
    return f"{error.message} ({error.hint})" if error.hint else error.message

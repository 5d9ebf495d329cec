"""Before a tool is called: may this run call it, do the arguments fit, is it a loop, does a person have to agree?

Pure, and decided from the log alone. What is refused is an answer to the model, which may do better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llmagentos.agents import arguments as checks
from llmagentos.agents.grounding import CALL_ID
from llmagentos.agents.log import Log
from llmagentos.agents.tools import Tool, Toolset
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import ToolCalled
from llmagentos.core.errors import nearest


class CallTool(msgspec.Struct, frozen=True):
    """Call a tool; `again` when the log already has the call, interrupted before its answer."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    again: bool = False


class RefuseTool(msgspec.Struct, frozen=True):
    """Tell the model why a call is not made."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    error: str


class AskPerson(msgspec.Struct, frozen=True):
    """Have a person agree to the call, within `timeout` seconds."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    timeout: float | None


class GiveUpTool(msgspec.Struct, frozen=True):
    """Record that nobody knows what became of an interrupted call that must not be repeated."""

    call_id: str
    error: str


class Calls(msgspec.Struct, frozen=True):
    """Calls to be made at the same time, at most `at_once` of them."""

    steps: tuple[CallTool | RefuseTool | GiveUpTool, ...]
    at_once: int


class Ask(msgspec.Struct, frozen=True):
    """Questions to a person: the run waits for the answers."""

    questions: tuple[AskPerson, ...]


class Fail(msgspec.Struct, frozen=True):
    """The run cannot go on."""

    error: str
    code: str


Step = Calls | Ask | Fail


def batch(spec: AgentSpec, tools: Toolset, log: Log, wanted: Sequence[CallTool | RefuseTool]) -> Step:
    """What to do about the calls that are wanted now: those that a person must agree to come after all others."""
    wanted = wanted[: max(1, spec.limits.steps - log.steps)]
    checked = [_checked(spec, tools, log, wanted[:i], call) for i, call in enumerate(wanted)]
    if (failed := next((step for step in checked if isinstance(step, Fail)), None)) is not None:
        return failed
    at_once = tuple(step for step in checked if isinstance(step, CallTool | RefuseTool))
    if at_once:
        return Calls(at_once, spec.limits.parallel)
    return Ask(tuple(step for step in checked if isinstance(step, AskPerson)))


def _checked(
    spec: AgentSpec, tools: Toolset, log: Log, before: Iterable[CallTool | RefuseTool], call: CallTool | RefuseTool
) -> CallTool | RefuseTool | AskPerson | Fail:
    if isinstance(call, RefuseTool) or call.call_id in log.agreed:  # it was checked when a person was asked
        return call
    tool = tools.get(call.name)
    if tool is None or call.name in tools.forbidden:
        return _refused(call, _missing(tools, call.name))
    if (looping := _loop(spec, log, before, call)) is not None:
        return looping
    if (wrong := checks.misfit(call.arguments, tool.parameters)) is not None:
        return _refused(call, f"the arguments do not fit: {wrong}")
    if tool.options.approval is not None:
        return AskPerson(call.call_id, call.name, call.arguments, tool.options.approval_timeout)
    return call


def _refused(call: CallTool, error: str) -> RefuseTool:
    return RefuseTool(call.call_id, call.name, call.arguments, error)


def _missing(tools: Toolset, name: str) -> str:
    if name in tools.forbidden:
        return f"{name} may not be used in this run"
    close = nearest(name, [tool.name for tool in tools.tools])
    return f"there is no tool {name!r}" + (f"; did you mean {close!r}?" if close else "")


def _loop(
    spec: AgentSpec, log: Log, before: Iterable[CallTool | RefuseTool], call: CallTool
) -> RefuseTool | Fail | None:
    """Told once that it goes round in circles; after that the run fails."""
    most = spec.limits.repeats
    told = f"this call was made {most} times with the same arguments: use what it returned, or do something else"
    same = [turn for turn in log.tools if (turn.name, turn.arguments) == (call.name, call.arguments)]
    if any(not turn.made and turn.error == told for turn in same):
        return Fail(
            f"the model goes round in circles: {call.name} again with the same arguments, {most} times before "
            "(limits.repeats)",
            "tool_loop",
        )
    count = len(same) + sum((each.name, each.arguments) == (call.name, call.arguments) for each in before)
    return _refused(call, told) if count >= most else None


def interrupted(spec: AgentSpec, tools: Toolset, calls: Sequence[ToolCalled]) -> Step:
    """What to do about calls that a host began and did not finish: again those that may be, and no others."""
    steps: list[CallTool | RefuseTool | GiveUpTool] = []
    for call in calls:
        known = tools.get(call.name)
        if _repeatable(call, known):
            steps.append(CallTool(call.call_id, call.name, call.arguments, again=True))
            continue
        unknown = f"the call of {call.name} was interrupted: whether it was carried out is not known"
        if known is not None and known.options.interrupted == "fail":
            return Fail(f"{unknown} (interrupted: fail)", "outcome_unknown")
        steps.append(GiveUpTool(call.call_id, f"{unknown}, so it is not repeated"))
    return Calls(tuple(steps), spec.limits.parallel)


def _repeatable(call: ToolCalled, tool: Tool | None) -> bool:
    return call.call_id == CALL_ID or (tool is not None and (tool.idempotent or tool.finds))

"""What those see of runs who may look, but not read what people, models and tools said in them.

States, steps, numbers, names of agents and tools and who did what stay; every text and value is left out. Whoever asked
for a run reads their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from msgspec.structs import replace

from llmagentos.agents.redacting import changed
from llmagentos.api.approvals import Approval
from llmagentos.api.runs import (
    Answered,
    ApprovalRequested,
    Approved,
    Created,
    Data,
    Denied,
    Failed,
    ModelReplied,
    ModelUsed,
    Paused,
    Run,
    RunDelta,
    RunEvent,
    RunSummary,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
    ToolRequest,
)
from llmagentos.security.identity import Identity, Permission

HIDDEN = "[not shown]"
R = TypeVar("R", bound=RunSummary)


def may_read(identity: Identity, created_by: str) -> bool:
    """Whether `identity` may read what was said in a run that `created_by` asked for."""
    return identity.may(Permission.RUNS_CONTENT) or created_by == str(identity)


def shown(run: R, identity: Identity) -> R:
    """The run as `identity` may see it."""
    if may_read(identity, run.created_by):
        return run
    paused = None if run.paused is None else run.paused.partition(": ")[0]
    wait = None if run.wait is None else replace(run.wait, told="")
    bare = replace(run, input=HIDDEN, session=None, paused=paused, wait=wait)
    if not isinstance(bare, Run):
        return bare
    answer, error = (None if text is None else HIDDEN for text in (bare.answer, bare.error))
    return replace(bare, answer=answer, output=None, sources=[], attachments=[], error=error)


def asked(approval: Approval, identity: Identity) -> Approval:
    """A tool call that waits, as `identity` may see it; jobs are seen by who may see jobs."""
    if approval.kind == "job" or may_read(identity, approval.requested_by):
        return approval
    return replace(approval, arguments={}, request=HIDDEN)


async def told(
    items: AsyncIterator[RunEvent | RunDelta], identity: Identity, created_by: str
) -> AsyncIterator[RunEvent | RunDelta]:
    """A run's log as `identity` may see it."""
    readable = may_read(identity, created_by)
    async for item in items:
        if readable:
            yield item
        elif isinstance(item, RunEvent):
            yield veiled(item)


def veiled(event: RunEvent) -> RunEvent:
    """The event without what was said."""
    return replace(event, data=_bare(changed(event.data, lambda _: HIDDEN)))


def _bare(data: Data) -> Data:
    match data:
        case Created():
            return replace(data, history=[], summary="", session=None, attachments=[], boundary="")
        case ModelReplied():
            return replace(data, text=HIDDEN, calls=[ToolRequest(call.name, "{}") for call in data.calls])
        case ToolCalled() | ApprovalRequested() | ToolRefused():
            return replace(data, arguments={})
        case ToolAnswered():
            return replace(data, result=None if data.result is None else HIDDEN)
        case Answered():
            return replace(data, text=HIDDEN, sources=[], output=None)
        case ModelUsed() | Failed() if data.error is not None:
            return replace(data, error=HIDDEN)
        case Approved() | Denied() | Paused():
            return replace(data, reason=None)
        case _:
            return data

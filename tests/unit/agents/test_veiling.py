"""Who may look but not read sees what happened in a run, and nothing of what was said."""

from __future__ import annotations

import msgspec
import pytest

from llmagentos.agents.veiling import HIDDEN, asked, shown, veiled
from llmagentos.api.approvals import Approval
from llmagentos.api.runs import (
    Answered,
    ApprovalRequested,
    Approved,
    Attachment,
    Created,
    Data,
    Denied,
    Exited,
    Failed,
    Killed,
    ModelReplied,
    ModelUsed,
    Paused,
    Purpose,
    Run,
    RunEvent,
    RunState,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
    ToolRequest,
    Turn,
    Wait,
)
from llmagentos.security.identity import Identity, Kind

SAID = "5ecret"
VIEWER, OPERATOR = Identity(Kind.VIEWER, "vi"), Identity(Kind.OPERATOR, "ann")
FILE = Attachment("a" * 64, SAID)
EVENTS: list[Data] = [
    Created("a", 1, "m", SAID, "admin:me", SAID, [Turn(SAID, SAID)], summary=SAID, attachments=[FILE]),
    ModelReplied(Purpose.TOOL, f'{{"{SAID}": "{SAID}", "n": 4711}}', 3, 4, calls=[ToolRequest("pay", SAID)]),
    ModelUsed("c", "m", "failed", error=SAID),
    ToolCalled("call-1", "pay", {SAID: [SAID, 4711]}),
    ToolAnswered("call-1", {"pin": 4711, "x": SAID}, SAID, 1.0),
    ToolAnswered("call-1", 4711),
    ToolRefused("call-1", "pay", {"x": SAID}, SAID),
    ApprovalRequested("call-1", "pay", {"x": SAID, "pin": 4711}),
    Approved("call-1", "operator:ann", SAID),
    Denied("call-1", "operator:ann", SAID),
    Answered(SAID, [{"x": SAID, "pin": 4711}], SAID, {"x": 4711}),
    Failed(SAID, "limit_steps"),
    Paused("operator:ann", reason=SAID),
    Killed("operator:ann"),
    Exited(3),
]


@pytest.mark.parametrize("data", EVENTS, ids=lambda data: type(data).__name__)
def test_no_event_tells_what_was_said(data: Data) -> None:
    event = RunEvent(7, 1.5, data)
    bare = veiled(event)
    told = msgspec.json.encode(bare).decode()
    assert SAID not in told
    assert "4711" not in told
    assert (bare.seq, bare.at, bare.type) == (7, 1.5, event.type)
    if isinstance(data, ToolCalled):
        assert "pay" in told


def test_runs_and_approvals() -> None:
    run = Run(
        "r1", "a", 1, "m", RunState.PAUSED, SAID, 1.0, "operator:ann", session=SAID, tokens_in=12, answer=SAID,
        output={"x": SAID}, sources=[SAID], attachments=[FILE], error=SAID, paused=f"operator:ann: {SAID}",
        wait=Wait("", 0, "tools", SAID),
    )  # fmt: skip
    bare = shown(run, VIEWER)
    assert SAID not in msgspec.json.encode(bare).decode()
    assert (bare.input, bare.tokens_in, bare.paused) == (HIDDEN, 12, "operator:ann")
    assert shown(run, OPERATOR) == run == shown(run, Identity(Kind.ADMIN, "x"))
    waiting = Approval("r1.c", "r1", "a", "c", "pay", {"x": SAID}, SAID, "operator:ann", 1.0, 2.0)
    assert SAID not in msgspec.json.encode(asked(waiting, VIEWER)).decode()
    assert asked(waiting, OPERATOR) == waiting

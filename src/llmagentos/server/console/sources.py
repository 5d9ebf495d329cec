"""What the console's pages ask of the rest of the server: one function a question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from llmagentos.agents.following import Draft
from llmagentos.api.agents import AgentInfo
from llmagentos.api.approvals import Approval
from llmagentos.api.budgets import Budgets
from llmagentos.api.jobs import JobSummary
from llmagentos.api.llm import ModelInfo
from llmagentos.api.nodes import Node, NodeSummary
from llmagentos.api.registry import Instance
from llmagentos.api.runs import NewRun, Run, RunEvent, RunSummary
from llmagentos.security.identity import Identity


class Runs(Protocol):
    """Runs, newest first; with `ended` also those that are over, with `before` only those older than that run."""

    async def __call__(
        self, *, ended: bool, agent: str | None = None, limit: int, before: str | None = None
    ) -> list[RunSummary]: ...


class Jobs(Protocol):
    """Jobs, newest first."""

    async def __call__(self, *, limit: int, node: str | None = None) -> list[JobSummary]: ...


class Answering(Protocol):
    """Answers a tool call that waits for a person."""

    async def __call__(self, approval: str, identity: Identity, reason: str | None) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where pages get what they show, and the few things that they do. Asking for what is not raises `NotFound`."""

    instances: Callable[[], list[Instance]]
    models: Callable[[], Awaitable[list[ModelInfo]]]
    agents: Callable[[], Awaitable[list[AgentInfo]]]
    agent: Callable[[str], Awaitable[AgentInfo]]
    runs: Runs
    run_counts: Callable[[], Awaitable[Mapping[str, int]]]
    run: Callable[[str], Awaitable[Run]]
    run_events: Callable[[str], Awaitable[list[RunEvent]]]
    draft: Callable[[str], Draft | None]
    ask: Callable[[NewRun, Identity], Awaitable[RunSummary]]
    kill: Callable[[str, Identity], Awaitable[object]]
    approvals: Callable[[], list[Approval]]
    approve: Answering
    deny: Answering
    pause: Callable[[str, Identity], Awaitable[object]]
    resume: Callable[[str, Identity], Awaitable[object]]
    jobs: Jobs
    budgets: Callable[[], Budgets]
    nodes: Callable[[], Awaitable[list[NodeSummary]]]
    node: Callable[[str], Awaitable[Node]]

"""A run loop with everything real but the model and the services, which follow a script."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from llmagentos.agents.log import Log, apply, fold
from llmagentos.agents.loop import Loop
from llmagentos.agents.model import Prompt, Reply
from llmagentos.agents.tools import Tool, Toolset, function_tool, resolve
from llmagentos.api.agents import AgentSpec
from llmagentos.api.registry import MethodSpec
from llmagentos.api.runs import Claimed, Created, Data, RunEvent
from llmagentos.core.errors import LLMAgentOSError, NotFound

TEXT = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}


@dataclass
class Scripted:
    """Models and services. What a script holds is said or raised, in order; the last entry again and again."""

    replies: Sequence[str | Reply | LLMAgentOSError] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    vectors: Callable[[str], list[float]] = lambda _: [1.0]
    idempotent: frozenset[str] = frozenset()
    prompts: list[Prompt] = field(default_factory=list)
    called: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._replies = deque(self.replies)

    async def complete(self, prompt: Prompt, *, run: str, timeout: float) -> Reply:
        self.prompts.append(prompt)
        reply = self._replies.popleft() if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, LLMAgentOSError):
            raise reply
        return reply if isinstance(reply, Reply) else Reply(reply, 10, 5)

    async def embed(self, texts: Sequence[str], *, kind: Any, run: str, timeout: float) -> list[list[float]]:
        return [self.vectors(text) for text in texts]

    async def call(
        self, service: str, method: str, arguments: Mapping[str, Any], *, timeout: Any = None, run_id: Any = None
    ) -> Any:
        self.called.append((f"{service}.{method}", dict(arguments)))
        result = self.results[f"{service}.{method}"]
        result = result(arguments) if callable(result) else result
        if isinstance(result, Exception):
            raise result
        return result

    async def describe(self, service: str, method: str) -> MethodSpec:
        name = f"{service}.{method}"
        if name not in self.results:
            raise NotFound(f"there is no service {service!r}")
        return MethodSpec(method, f"Does {method}.", name in self.idempotent, False, TEXT, {})


class Book:
    """One run's log in memory."""

    def __init__(self, events: Sequence[RunEvent]) -> None:
        self.events = list(events)
        self.clock = events[-1].at if events else 0.0

    async def add(self, data: Sequence[Data]) -> list[RunEvent]:
        log = fold(self.events)
        new = [RunEvent(log.seq + i, self.clock, item) for i, item in enumerate(data, 1)]
        for event in new:
            log = apply(log, event)
        self.events += new
        return new

    @property
    def log(self) -> Log:
        return fold(self.events)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


def begun(spec: AgentSpec, text: str, **more: Any) -> list[RunEvent]:
    """The log of a run that was just claimed."""
    return [
        RunEvent(1, 100.0, Created(spec.name, 1, spec.model, text, "admin:me", **more)),
        RunEvent(2, 100.0, Claimed("server", 1)),
    ]


def carry_on(spec: AgentSpec, world: Scripted, book: Book, functions: Mapping[str, Tool] | None = None) -> Log:
    """Run the loop to its end."""

    async def main() -> Log:
        tools: Toolset = await resolve(spec, functions or {}, world)
        return await Loop("run1", spec, tools, world, book.add).carry_on(book.log, book.events)

    return asyncio.run(main())


def tools_of(*functions: Callable[..., Any]) -> dict[str, Tool]:
    made = [function_tool(each) for each in functions]
    return {tool.name: tool for tool in made}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmagentos.agents.loop.RETRY_S", (0.001, 0.001))

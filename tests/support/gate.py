"""A gateway in front of scripted engines, and engines whose every answer waits for the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llmagentos.api.llm import CallInfo, ChatRequest, Message
from llmagentos.core.clock import SystemClock
from llmagentos.core.config import Config
from llmagentos.core.config.schema import ModelConfig
from llmagentos.core.state import StateDirectory
from llmagentos.kernel.policy import POLICIES
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.metering import Meter
from llmagentos.llm.models import configured
from support.scripted import Step, Wait
from support.server import eventually


@dataclass
class Gate:
    """A gateway, and the calls that it metered."""

    gateway: Gateway
    meter: Meter
    calls: list[CallInfo] = field(default_factory=list)

    async def ended(self) -> list[CallInfo]:
        """The calls that have ended."""
        await self.meter.flush()
        return self.calls

    def waiting(self, model: str) -> int:
        """How many calls wait for a model."""
        return next(queue.waiting_count for queue in self.gateway.queues(most=0) if queue.model == model)


@asynccontextmanager
async def gate(
    tmp_path: Any,
    models: Mapping[str, ModelConfig],
    *,
    policy: str = "fair",
    shares: Mapping[str, float] | None = None,
) -> AsyncIterator[Gate]:
    """A gateway for the block."""
    calls: list[CallInfo] = []

    async def store(ended: Sequence[CallInfo]) -> None:
        calls.extend(ended)

    clock = SystemClock()
    meter = Meter(store, clock)
    gateway = Gateway(
        configured(Config(models=dict(models)), StateDirectory(tmp_path), clock),
        meter=meter,
        clock=clock,
        policy=POLICIES[policy],
        shares=shares,
    )
    yield Gate(gateway, meter, calls)
    await gateway.aclose()


def ask(text: str = "hi", **more: Any) -> ChatRequest:
    """A request with one message."""
    return ChatRequest([Message("user", text)], **more)


class Held:
    """The script of an engine that answers only when told to, with `max_tokens` pieces or one.

    `begun` are the texts it was asked, in order.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._open: dict[int, asyncio.Event] = {}

    @property
    def answered(self) -> int:
        """How many calls have been answered."""
        return len(self.begun) - len(self._open)

    def __call__(self, request: dict[str, Any]) -> Sequence[Step]:
        event = self._open[len(self.begun)] = asyncio.Event()
        self.begun.append(request["messages"][0]["content"])
        return [Wait(event), *["ok"] * request.get("max_tokens", 1)]

    async def begins(self, count: int) -> None:
        """Wait until so many calls have come in all."""
        await eventually(lambda: len(self.begun) >= count)

    async def answer(self, text: str | None = None) -> str:
        """Answer the oldest call that is under way, or the one that asked `text`, once there is one; what it asked."""
        await eventually(lambda: self._open if text is None else text in self.begun)
        number = next(iter(self._open)) if text is None else self.begun.index(text)
        self._open.pop(number).set()
        return self.begun[number]

    async def answer_all(self, count: int) -> list[str]:
        """Answer until so many calls have been answered in all; what they asked, in the order in which they began."""
        while self.answered < count:
            await self.answer()
        return self.begun

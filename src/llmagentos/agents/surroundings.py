"""What a run is told of its surroundings when it is asked for and when it is taken: the model, files, guardrails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from llmagentos.agents.attachments import texts
from llmagentos.agents.foreign import new_boundary
from llmagentos.agents.log import Log
from llmagentos.agents.records import Agent
from llmagentos.agents.sessions import Before
from llmagentos.agents.vaults import Unkept, Vaults
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import Attachment, Created
from llmagentos.core.config.guardrails import Guardrails


async def _nothing(_: Sequence[Attachment]) -> dict[str, str]:
    return {}


class Given(NamedTuple):
    """What a host is given with a run: the agent as it is in force, the files, what is behind placeholders."""

    spec: AgentSpec
    attached: dict[str, str]
    values: dict[str, str]


@dataclass(slots=True)
class Surroundings:
    """Of all runs of a ledger; the server fills it in."""

    guardrails: Guardrails | None = None
    """Of agents that have none of their own."""
    context_of: Callable[[str], int] = lambda _: 0
    """Tokens of context of a model; 0 when nobody knows."""
    attached_of: Callable[[Sequence[Attachment]], Awaitable[dict[str, str]]] = _nothing
    """What attachments hold, by digest."""
    vaults: Vaults = field(default_factory=lambda: Vaults(Unkept()))

    async def created(
        self,
        run: str,
        agent: Agent,
        text: str,
        *,
        by: str,
        session: str | None,
        before: Before,
        priority: int,
        parent: str | None,
        attachments: Sequence[Attachment],
    ) -> Created:
        """The first event of a run, as it may be stored."""
        spec = agent.spec
        rails = spec.guardrails or self.guardrails or Guardrails()
        data = Created(
            spec.name,
            agent.version,
            spec.model,
            text,
            by,
            session,
            before.turns,
            priority,
            parent,
            before.summary,
            self.context_of(spec.model),
            new_boundary(),
            list(attachments),
            list(rails.logs),
            rails.values_s if rails.restore else 0.0,
        )
        attached = await self.attached_of(attachments) if rails.logs else {}
        return await self.vaults.begin(run, data, texts(attached.values()), before.run)

    async def given(self, run: str, state: Log, spec: AgentSpec) -> Given:
        """What the host of a run needs beside its log."""
        request = state.request
        return Given(
            replace(spec, guardrails=spec.guardrails or self.guardrails),
            await self.attached_of(request.attachments),
            await self.vaults.values(run, request),
        )

"""Models: the gate in front of the engines, its meter, OpenAI's API."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from llmagentos.agents.hosted import require_own
from llmagentos.agents.ledger import Ledger
from llmagentos.api.llm import CallInfo
from llmagentos.core.config.guardrails import Guardrails
from llmagentos.core.events import Hub
from llmagentos.kernel.policy import POLICIES
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.metering import Meter
from llmagentos.llm.models import configured
from llmagentos.llm.redacted import RailsOf, RedactedCalls
from llmagentos.llm.responses.service import Responses
from llmagentos.security.identity import Identity
from llmagentos.server.routes import completions, llm, models, responses
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.agents import AgentRecords
from llmagentos.storage.calls import CallRecords
from llmagentos.storage.responses import ResponseRecords

_KNOWN_RUNS = 10_000


def wire(base: Foundation, parts: Parts) -> tuple[Gateway, CallRecords, Meter]:
    """The gateway for the server's own agents, the metered calls for the console, and who meters them."""
    records = CallRecords(base.database, base.clock, days=base.config.retention.calls_days)
    meter = Meter(records.add, base.clock)
    known = configured(base.config, base.state, base.clock)

    scheduling = base.config.scheduling
    gateway = Gateway(
        known,
        meter=meter,
        clock=base.clock,
        policy=POLICIES[scheduling.policy],
        shares=scheduling.shares,
    )
    _tell(base.hub, gateway, meter)
    parts.background += [meter.run, gateway.keep_models]
    parts.prune.append(records.prune)
    parts.close.append(gateway.aclose)
    return gateway, records, meter


def _tell(hub: Hub, gateway: Gateway, meter: Meter) -> None:
    """Pages that show models and calls hear of what is new."""

    async def stored(_: Sequence[CallInfo]) -> None:
        hub.publish("models", None)

    gateway.tell_changes(partial(hub.publish, "models", None))
    meter.told.append(stored)


def expose(
    base: Foundation, parts: Parts, gateway: Gateway, records: CallRecords, ledger: Ledger, agents: AgentRecords
) -> None:
    """OpenAI's API. `ledger` knows whose run a call is made for, so it comes after the agents."""
    gateway.tell_pieces(ledger.drafts.piece)
    redacted = RedactedCalls(gateway, base.config.guardrails, _rails(base.config.guardrails, ledger, agents))

    async def acts_for(identity: Identity, run_id: str) -> None:
        require_own(identity, await ledger.host_of_live(run_id))

    async def calls(limit: int, run_id: str | None) -> list[CallInfo]:
        return await records.newest(limit, run_id=run_id)

    parts.endpoints += llm.endpoints(gateway, redacted, calls, acts_for, started=base.started)
    parts.endpoints += models.endpoints(gateway)
    parts.endpoints += completions.endpoints(redacted, acts_for)
    retention = base.config.retention
    kept = ResponseRecords(
        base.database,
        base.clock,
        days=retention.responses_days,
        most=retention.responses_kept,
        most_bytes=retention.responses_bytes,
    )
    parts.endpoints += responses.endpoints(Responses(redacted.chat, kept, base.clock), acts_for)
    parts.prune.append(kept.prune)


def _rails(rails: Guardrails, ledger: Ledger, agents: AgentRecords) -> RailsOf:
    """Programs have the guardrails of the agent as whose work they count, when it has any. Asked once a run."""
    known: OrderedDict[str, Guardrails] = OrderedDict()

    async def rails_of(run: str) -> Guardrails:
        if run not in known:
            record = await agents.current((await ledger.state(run)).request.agent)
            known[run] = (record.spec.guardrails if record is not None else None) or rails
            if len(known) > _KNOWN_RUNS:
                known.popitem(last=False)
        return known[run]

    return rails_of

"""Models: the gate in front of the engines, its meter, OpenAI's API."""

from __future__ import annotations

from llmagentos.api.runs import RunDelta
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.metering import Meter
from llmagentos.llm.models import configured
from llmagentos.server.routes import llm
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.calls import CallRecords


def wire(base: Foundation, parts: Parts) -> tuple[Gateway, CallRecords]:
    """The gateway for the server's own agents, and the metered calls for the console."""
    records = CallRecords(base.database, base.clock, days=base.config.retention.calls_days)
    meter = Meter(records.add, base.clock)
    models = configured(base.config, base.state, base.clock)

    def watched(run_id: str, text: str) -> None:
        base.hub.publish(f"run:{run_id}", RunDelta(run_id, text))

    gateway = Gateway(models, meter=meter, clock=base.clock, on_delta=watched)
    parts.endpoints += llm.endpoints(
        gateway, lambda limit, run: records.newest(limit, run_id=run), started=base.started
    )
    parts.background.append(meter.run)
    parts.prune.append(records.prune)
    parts.close.append(gateway.aclose)
    return gateway, records

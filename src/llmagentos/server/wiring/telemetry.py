"""What nodes measure and log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmagentos.fleet.looks import Looks
from llmagentos.observe.telemetry import Keep, Telemetry
from llmagentos.server.routes import telemetry as routes
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.telemetry import TelemetryRecords


def wire(base: Foundation, parts: Parts, nodes: Callable[[], Awaitable[list[str]]]) -> Telemetry:
    """`nodes` names all there are."""
    kept = base.config.retention
    keep = Keep(kept.samples_days, kept.five_minutes_days, kept.hours_days, kept.logs_days, kept.logs_lines)
    several = not base.database.is_sqlite
    telemetry = Telemetry(TelemetryRecords(base.database), base.hub, base.clock, keep, several=several)

    async def prune() -> None:
        await telemetry.prune()
        await telemetry.keep_only(await nodes())

    parts.endpoints += routes.endpoints(telemetry, base.hub, nodes, Looks(several=several))
    parts.start.append(telemetry.start)
    parts.background += [telemetry.store, telemetry.roll]
    parts.prune.append(prune)
    return telemetry

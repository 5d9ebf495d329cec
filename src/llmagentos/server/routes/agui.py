"""AG-UI: an agent's run as a stream of events for a user interface."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from llmagentos.agents.agui import Translation, request_of
from llmagentos.agents.door import Door
from llmagentos.api.agui import RunAgentInput
from llmagentos.api.runs import Run
from llmagentos.core.ids import id_of
from llmagentos.security.identity import Permission
from llmagentos.server import sse
from llmagentos.server.endpoint import Call, Endpoint

_SESSION = re.compile(r"[A-Za-z0-9._-]{1,64}")


def endpoints(door: Door) -> list[Endpoint]:
    """`door` leads to the agents."""

    async def run(call: Call) -> StreamingResponse:
        given: RunAgentInput = call.body
        agent, identity = call.path["agent"], call.identity
        thread = given.thread_id if _SESSION.fullmatch(given.thread_id) else id_of("agui", given.thread_id)
        # The same `runId` of the same thread is the same run: who lost the connection gets it all again.
        own = id_of("agui", str(identity), agent, given.thread_id, given.run_id)
        begun = await door.ask(agent, request_of(given), identity, session=thread, run=own)
        return sse.stream(_events(door, begun, Translation(given.thread_id, given.run_id, begun.id)))

    return [
        Endpoint(
            "POST",
            "/api/v1/agui/{agent}",
            Permission.RUNS_WRITE,
            run,
            body=RunAgentInput,
            summary="Ask an agent over AG-UI: a stream of its events",
            streams=True,
            audited=True,
        )
    ]


async def _events(door: Door, run: Run, translation: Translation) -> AsyncIterator[sse.Event]:
    for event in translation.begin():
        yield sse.Event(None, event)
    async for item in door.follow(run.id):
        for event in translation.events(item):
            yield sse.Event(None, event)

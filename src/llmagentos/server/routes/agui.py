"""AG-UI: an agent's run as a stream of events for a user interface."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from msgspec.structs import replace
from starlette.responses import StreamingResponse

from llmagentos.agents.agui import Translation, request_of
from llmagentos.agents.door import Door
from llmagentos.api.agui import RunAgentInput
from llmagentos.api.runs import Answered, Created, RunDelta, RunEvent
from llmagentos.core.ids import id_of
from llmagentos.security.identity import Identity, Permission
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
        asked = request_of(given)
        begun = await door.ask(agent, asked, identity, session=thread, run=own)
        translation = Translation(given.thread_id, given.run_id, begun.id)
        return sse.stream(_events(_seen(door, begun.id, identity, asked), translation))

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


async def _seen(door: Door, run: str, identity: Identity, asked: str) -> AsyncIterator[RunEvent | RunDelta]:
    """The run's log; request and answer with the values that who asked may see: the log may have placeholders."""
    async for item in door.follow(run):
        if isinstance(item, RunEvent) and isinstance(item.data, Created):
            item = replace(item, data=replace(item.data, input=asked))
        elif isinstance(item, RunEvent) and isinstance(item.data, Answered):
            found = await door.run(run, identity)
            text = item.data.text if found.answer is None else found.answer
            item = replace(item, data=replace(item.data, text=text, sources=found.sources))
        yield item


async def _events(items: AsyncIterator[RunEvent | RunDelta], translation: Translation) -> AsyncIterator[sse.Event]:
    for event in translation.begin():
        yield sse.Event(None, event)
    async for item in items:
        for event in translation.events(item):
            yield sse.Event(None, event)

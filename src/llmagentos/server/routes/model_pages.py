"""The console's page of models, and loading and unloading from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response

from llmagentos.api.llm import CallInfo, ModelInfo, ModelQueue
from llmagentos.core.errors import Conflict
from llmagentos.llm.residence import ModelBusy
from llmagentos.security.identity import Permission
from llmagentos.server.console.forms import see_other
from llmagentos.server.console.render import Pages, language_choice, translation
from llmagentos.server.console.views import models
from llmagentos.server.endpoint import Call, Endpoint

MAX_CALLS = 50
EVERY_S = 10
"""What no event tells of: how engines elsewhere are, memory, rates."""


class Unload(Protocol):
    """Takes a model out of memory. Raises `ModelBusy` while calls use it, unless forced."""

    async def __call__(self, name: str, *, force: bool) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSources:
    """Where the page gets what it shows, and what it does."""

    models: Callable[[], Awaitable[list[ModelInfo]]]
    queues: Callable[[int], list[ModelQueue]]
    calls: Callable[[int], Awaitable[list[CallInfo]]]
    load: Callable[[str], Awaitable[object]]
    unload: Unload


def endpoints(sources: ModelSources, pages: Pages) -> list[Endpoint]:
    """`GET /models`, `POST /models/{name}/load` and `/unload`."""

    async def show(call: Call, error: Conflict | None = None) -> Response:
        known, calls = await asyncio.gather(sources.models(), sources.calls(MAX_CALLS))
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "models.html",
            section="models",
            topics="topic=models",
            every=EVERY_S,
            models=models.rows(known, translation(call.request)),
            waiting=models.waiting(sources.queues(MAX_CALLS), translation(call.request)),
            calls=calls,
            error=error,
            busy=call.path["name"] if isinstance(error, ModelBusy) else None,
        )

    async def load(call: Call) -> Response:
        try:
            await sources.load(call.path["name"])
        except Conflict as error:
            return await show(call, error)
        return see_other("/models")

    async def unload(call: Call) -> Response:
        try:
            await sources.unload(call.path["name"], force=call.flag("force"))
        except Conflict as error:
            return await show(call, error)
        return see_other("/models")

    one, write = "/models/{name:path}", Permission.MODELS_WRITE
    return [
        Endpoint("GET", "/models", Permission.MODELS_READ, show),
        Endpoint("POST", f"{one}/load", write, load, audited=True),
        Endpoint("POST", f"{one}/unload", write, unload, audited=True),
    ]

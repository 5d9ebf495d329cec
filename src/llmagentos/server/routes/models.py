"""One model: what there is to see of it, and loading and unloading it."""

from __future__ import annotations

from llmagentos.api.llm import LoadModel, ModelInfo, UnloadModel
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.residence import require_idle, residence_of
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint

_ONE = "/api/v1/models/{name:path}"  # names may hold slashes: org/model


def endpoints(gateway: Gateway) -> list[Endpoint]:
    """Names may be aliases."""

    async def show(call: Call) -> ModelInfo:
        return await gateway.describe(gateway.model(call.path["name"]))

    async def load(call: Call) -> ModelInfo:
        model = gateway.model(call.path["name"])
        residence_of(model.name, model.residence).load()
        return await gateway.describe(model)

    async def unload(call: Call) -> ModelInfo:
        request: UnloadModel = call.body
        model = gateway.model(call.path["name"])
        residence = residence_of(model.name, model.residence)
        if not request.force:
            require_idle(model.name, gateway.busy(model.name))
        residence.unload()
        return await gateway.describe(model)

    write = Permission.MODELS_WRITE
    return [
        Endpoint("GET", _ONE, Permission.MODELS_READ, show, returns=ModelInfo, summary="A model and its engines"),
        Endpoint(
            "POST",
            f"{_ONE}/load",
            write,
            load,
            body=LoadModel,
            returns=ModelInfo,
            summary="Have a model of the server's machine loaded; it says how far that is",
            audited=True,
        ),
        Endpoint(
            "POST",
            f"{_ONE}/unload",
            write,
            unload,
            body=UnloadModel,
            returns=ModelInfo,
            summary="Take a model out of memory; the next call loads it again",
            audited=True,
        ),
    ]

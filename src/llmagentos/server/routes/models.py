"""One model: what there is to see of it, and loading and unloading it."""

from __future__ import annotations

from llmagentos.api.llm import LoadModel, ModelInfo, UnloadModel
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.residence import require_idle, residence_of
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint

_ONE = "/api/v1/models/{name:path}"  # names may hold slashes: org/model


class Loading:
    """Puts models of this machine into memory and takes them out. Names may be aliases."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def load(self, name: str) -> ModelInfo:
        """Have a model loaded. Raises `NotLoadable` for one that another system serves."""
        model = self._gateway.model(name)
        residence_of(model.name, model.residence).load()
        return await self._gateway.describe(model)

    async def unload(self, name: str, *, force: bool) -> ModelInfo:
        """Take a model out of memory. Raises `ModelBusy` while calls use it, unless `force`d: then they fail."""
        model = self._gateway.model(name)
        residence = residence_of(model.name, model.residence)
        if not force:
            require_idle(model.name, self._gateway.busy(model.name))
        residence.unload()
        return await self._gateway.describe(model)


def endpoints(gateway: Gateway) -> list[Endpoint]:
    """Names may be aliases."""
    loading = Loading(gateway)

    async def show(call: Call) -> ModelInfo:
        return await gateway.describe(gateway.model(call.path["name"]))

    async def load(call: Call) -> ModelInfo:
        return await loading.load(call.path["name"])

    async def unload(call: Call) -> ModelInfo:
        request: UnloadModel = call.body
        return await loading.unload(call.path["name"], force=request.force)

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

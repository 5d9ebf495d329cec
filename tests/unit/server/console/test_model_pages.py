"""Loading and unloading models from the console."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from llmagentos.core.clock import ManualClock
from llmagentos.llm.residence import require_idle, residence_of
from llmagentos.security.identity import Identity, Kind
from llmagentos.server.console.render import Pages
from llmagentos.server.endpoint import Call
from llmagentos.server.routes import model_pages
from unit.server.console import world


class Models:
    """What was asked of them; a model that `busy` calls use is not unloaded just so."""

    def __init__(self, busy: int = 0) -> None:
        self.asked: list[Any] = []
        self.busy = busy

    async def load(self, name: str) -> None:
        self.asked.append(("load", name))
        if name == "hosted":
            residence_of(name, None)

    async def unload(self, name: str, *, force: bool) -> None:
        if not force:
            require_idle(name, self.busy)
        self.asked.append(("unload", name, force))


def post(models: Models, act: str, name: str, query: str = "") -> Response:
    sources = world.model_sources(full=True, load=models.load, unload=models.unload)
    path = f"/models/{{name:path}}/{act}"
    found = {each.path: each for each in model_pages.endpoints(sources, Pages(ManualClock()))}
    asked = Request({"type": "http", "method": "POST", "path": f"/models/{name}/{act}", "query_string": query.encode(),
                     "scheme": "http", "headers": [(b"host", b"console")], "server": ("console", 80)})  # fmt: skip
    call = Call(Identity(Kind.OPERATOR, "ann"), {"name": name}, asked.query_params, None, asked)
    answer: Response = asyncio.run(found[path].handler(call))
    return answer


@pytest.mark.parametrize("act", ["load", "unload"])
def test_what_is_done_leads_back(act: str) -> None:
    models = Models()
    answer = post(models, act, "org/model")
    assert (answer.status_code, answer.headers["location"]) == (303, "/models")
    assert models.asked[0][:2] == (act, "org/model")


def test_a_model_in_use_is_unloaded_when_one_insists() -> None:
    models = Models(busy=3)
    answer = post(models, "unload", "org/model")
    html = bytes(answer.body).decode()
    assert (answer.status_code, models.asked) == (409, [])
    assert 'action="/models/org/model/unload?force=1"' in html
    assert "hx-get" not in html, "what answered a form is not read anew"
    assert post(models, "unload", "org/model", "force=1").status_code == 303
    assert models.asked == [("unload", "org/model", True)]


def test_a_model_elsewhere_is_not_loaded_here() -> None:
    answer = post(Models(), "load", "hosted")
    assert answer.status_code == 409
    assert "another system serves it" in bytes(answer.body).decode()

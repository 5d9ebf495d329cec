"""A node against every route of the server: it may fetch its own queue and tell its own results, nothing else.

The class of CVE-2020-11651 and CVE-2020-11652 (a method that nobody thought of, a path of a client that is used on
the server) is looked for by walking all that the server serves, not what this test's author remembers.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from llmagentos.api import jobs, nodes
from llmagentos.api.http import HttpClient
from llmagentos.api.tokens import Keys, NewToken, TokenRequest
from llmagentos.core.config import Config
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from llmagentos.core.state import StateDirectory
from llmagentos.security.identity import Permission
from llmagentos.server.app import create_app
from support.node import Key, join_request

pytestmark = pytest.mark.anyio

QUEUE = "/api/v1/nodes/self/queue"
SELF = {
    ("PUT", "/api/v1/nodes/self/facts"),
    ("PUT", "/api/v1/nodes/self/heartbeat"),
    ("PUT", "/api/v1/nodes/self/upgrade"),
    ("POST", "/api/v1/nodes/self/certificate"),
    ("POST", "/api/v1/nodes/self/telemetry"),
    ("POST", "/api/v1/nodes/self/modules/{name}/token"),
    ("GET", "/api/v1/nodes/self/bundles/{digest}"),
    ("GET", "/api/v1/nodes/self/wheels/{digest}"),
    ("POST", f"{QUEUE}/claim"),
    ("PUT", f"{QUEUE}/{{id}}/lease"),
    ("POST", f"{QUEUE}/{{id}}/events"),
    ("POST", f"{QUEUE}/{{id}}/finish"),
    ("POST", f"{QUEUE}/{{id}}/shares"),
    ("GET", f"{QUEUE}/{{id}}/shares"),
    ("PUT", f"{QUEUE}/{{id}}/files/{{digest}}"),
    ("GET", f"{QUEUE}/{{id}}/files/{{digest}}"),
}
"""All that a node may ask. A new one has to be thought about here, and in the tests of others' queues below."""
WITHOUT = {"/login", "/static/{path:path}", "/install.sh"}
TRAVERSALS = ("..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2fllmagentos.db", "x\x00", "~root", "self")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    state = StateDirectory(tmp_path_factory.mktemp("app") / "state")
    state.prepare()
    return create_app(Config(state=str(state.root)), state)


@pytest.fixture(scope="module")
def served(app: Any) -> list[tuple[str, str]]:
    """Method and path of everything, pages included."""
    found = [(endpoint.method, endpoint.path) for endpoint in app.state.endpoints]
    pages = [str(getattr(route, "path", "/")) for route in app.routes]
    return found + [(method, path) for path in pages for method in ("GET", "POST", "PUT", "DELETE")]


def concrete(path: str, values: dict[str, str]) -> str:
    parts = (values.get(part.strip("{}").partition(":")[0], "x") if "{" in part else part for part in path.split("/"))
    return "/".join(parts)


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


async def status(client: HttpClient, url: str, method: str, path: str, token: str, body: Any = None) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    done = await client.request(method, url, path, headers=headers, body=json.dumps(body or {}).encode(), timeout=60)
    return done.status


def _template(path: str) -> str:
    """The route of a concrete path."""
    for method_and_path in SELF:
        pattern = re.sub(r"\{[^}]*\}", "[^/]+", method_and_path[1])
        if re.fullmatch(pattern, path.partition("?")[0]):
            return method_and_path[1]
    return path


def test_what_a_node_may_is_this_and_no_more(app: Any) -> None:
    work = {(e.method, e.path) for e in app.state.endpoints if e.allow is Permission.NODE_WORK}
    assert work <= SELF, "a route for nodes that these tests do not know"
    assert all("/self/" in path for _, path in work), "a node names itself by its token, never by a path"


async def test_every_other_route_refuses_a_node(server, join, submit, app, served, http):
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        sent = await submit(admin, limit="n2")
        values = {"name": "n2", "id": str(sent.summary.id), "digest": sent.spec.bundle, "pattern": "*"}
        client, token = http, one.token
        api = {(endpoint.method, endpoint.path) for endpoint in app.state.endpoints}
        asked, answered = 0, []
        for method, path in dict.fromkeys(served):
            if (method, path) in SELF or path in WITHOUT:
                continue
            asked += 1
            code = await status(client, server.url, method, concrete(path, values), token)
            # What there is must not be told either: who may not ask is refused before anything is looked up.
            if code not in ({403} if (method, path) in api else {403, 404, 405}):
                answered.append((method, path, code))
        assert answered == []
        assert asked > 60
        assert {"/mcp", "/v1/responses", "/v1/chat/completions", "/a2a/{name}", "/metrics/nodes"} <= {p for _, p in api}
        assert (await two.claimed()).job == sent.summary.id, "nothing happened to it"


async def test_others_queues_cannot_be_reached(server, join, submit, http):
    """Every route of a queue with another node's job, at each stage of that job, with its true and other fences."""
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        sent = await submit(admin, limit="n2")
        number = sent.summary.id
        client = http
        wheel = await nodes.upgrade(admin, "n2", None)

        async def attempts(fence: int) -> list[int]:
            finish = {"fence": fence, "status": "succeeded", "exit_code": 0}
            events = {"fence": fence, "events": [{"type": "log", "seq": 1, "at": 1.0, "text": "forged"}]}
            tries = [
                ("PUT", f"{QUEUE}/{number}/lease", {"fence": fence}),
                ("POST", f"{QUEUE}/{number}/events", events),
                ("POST", f"{QUEUE}/{number}/finish", finish),
                ("POST", f"{QUEUE}/{number}/shares", {"fence": fence, "first_seq": 1, "shares": [{"a": 1}]}),
                ("GET", f"{QUEUE}/{number}/shares?fence={fence}", None),
                ("PUT", f"{QUEUE}/{number}/files/{sha256(b'{}').hexdigest()}?fence={fence}&path=x&source=x", None),
                ("GET", f"{QUEUE}/{number}/files/{sha256(b'{}').hexdigest()}?fence={fence}", None),
                ("GET", f"/api/v1/nodes/self/bundles/{sent.spec.bundle}", None),
                ("GET", f"/api/v1/nodes/self/wheels/{wheel.digest}", None),
                ("POST", "/api/v1/nodes/self/modules/of-n2/token", None),
            ]
            named = {(method, path) for method, path in SELF if "{" in path}
            assert {(method, _template(path)) for method, path, _ in tries} == named, "each that names something"
            return [await status(client, server.url, method, path, one.token, body) for method, path, body in tries]

        await nodes.allow(admin, "n2", "of-n2")
        refused = {403, 404, 409}
        assert set(await attempts(0)) <= refused
        job = await two.claimed()
        for fence in (job.fence, job.fence - 1, job.fence + 1, 0):
            assert set(await attempts(fence)) <= refused
        assert await one.claim(wait=0) is None
        assert (await jobs.show(admin, number)).summary.state == "running"
        assert await jobs.events(admin, number) == []
        await two.work(job)
        assert set(await attempts(job.fence)) <= refused
        assert (await jobs.show(admin, number)).summary.state == "succeeded"


async def test_paths_of_a_node_are_never_used_on_the_server(server, join, http):
    async with server.client(), join(server, "n1") as one:
        client = http
        for name in TRAVERSALS:
            quoted = name.replace("\x00", "%00")
            for method, path in (
                ("GET", f"/api/v1/nodes/self/bundles/{quoted}"),
                ("GET", f"/api/v1/nodes/self/wheels/{quoted}"),
                ("POST", f"/api/v1/nodes/self/modules/{quoted}/token"),
                ("POST", f"{QUEUE}/{quoted}/finish"),
            ):
                code = await status(client, server.url, method, path, one.token)
                assert 400 <= code < 500, (method, path, code)


async def test_a_key_is_good_for_a_token_and_nothing_else(server, served, http, tmp_path: Path):
    """An assertion is not a token: no other route takes it."""
    async with server.client() as admin:
        key = await Key.join(server, admin, "n1", tmp_path)
        client = http
        answered = []
        for method, path in dict.fromkeys(served):
            if path in WITHOUT or path == "/api/v1/nodes/self/token":
                continue
            code = await status(client, server.url, method, concrete(path, {}), key.assertion())
            if code not in (401, 403, 404, 405):
                answered.append((method, path, code))
        assert answered == []


async def test_a_node_gets_tokens_only_for_modules_that_were_put_there(server, join, submit):
    unit = """\
- hosts: all
  tasks:
    - copy: {dest: "{{ llmagentos_modules_dir }}/catalogue.yaml", content: "command: [sleep, '60']"}
"""
    async with server.client() as admin, join(server, "n1") as one, join(server, "n2") as two:
        with pytest.raises(Forbidden, match="may not have a token for module 'catalogue'") as caught:
            await nodes.module_token(one.client, "catalogue")
        assert caught.value.hint == "llmctl node allow n1 catalogue"
        await submit(admin, unit, limit="n1", check=True)
        await one.work(await one.claimed())
        with pytest.raises(Forbidden):
            await nodes.module_token(one.client, "catalogue")
        sent = await submit(admin, unit, limit="n1")
        with pytest.raises(Forbidden):
            await nodes.module_token(one.client, "catalogue")
        job = await one.claimed()
        assert (await nodes.module_token(one.client, "catalogue")).startswith("lao_module_")
        with pytest.raises(Forbidden):
            await nodes.module_token(one.client, "orders")
        with pytest.raises(Forbidden):
            await nodes.module_token(two.client, "catalogue")
        await one.work(job)
        allowed = (await nodes.show(admin, "n1")).allowed
        assert [(grant.pattern, grant.by) for grant in allowed] == [
            ("catalogue", f"job {sent.summary.id} of admin:admin")
        ]


async def test_a_person_allows_and_denies(server, join):
    async with server.client() as admin, join(server, "n1") as one:
        await nodes.allow(admin, "n1", "web-*")
        token = await nodes.module_token(one.client, "web-shop")
        await nodes.deny(admin, "n1", "web-*")
        with pytest.raises(Forbidden):
            await nodes.module_token(one.client, "web-shop")
        async with server.client(token) as module:
            with pytest.raises(Unauthenticated):
                await module.get("/api/v1/keys", Keys)
        with pytest.raises(NotFound):
            await nodes.deny(admin, "n1", "web-*")
        with pytest.raises(NotFound):
            await nodes.allow(admin, "n7", "web-*")


async def test_a_join_token_brings_modules_and_labels_to_several(server):
    async with server.client() as admin:
        wanted = TokenRequest("join", "rack", uses=2, modules=["web-*"], labels={"env": "prod"})
        made = await admin.post("/api/v1/tokens", wanted, NewToken)
        assert made.info.uses_left == 2
        async with server.client(made.token) as joining:
            for name in ("r1", "r2"):
                joined = await nodes.join(joining, join_request(name))
                async with server.client(joined.token) as node:
                    await nodes.beat(node, nodes.Heartbeat())
                    assert await nodes.module_token(node, "web-shop")
            with pytest.raises(Unauthenticated):
                await nodes.join(joining, join_request("r3"))
        found = await nodes.listing(admin, filter="label.env=prod and group=label_env_prod")
        assert [node.name for node in found] == ["r1", "r2"]
        with pytest.raises(InvalidInput, match="7 days"):
            await admin.post("/api/v1/tokens", TokenRequest("join", "x", ttl_s=8 * 86_400, uses=2), NewToken)
        with pytest.raises(InvalidInput, match="of kind join"):
            await admin.post("/api/v1/tokens", TokenRequest("viewer", "x", uses=2), NewToken)


async def test_a_taken_name_does_not_use_the_token_up(server, join):
    async with server.client() as admin, join(server, "n1"):
        made = await admin.post("/api/v1/tokens", TokenRequest("join", "any"), NewToken)
        async with server.client(made.token) as joining:
            with pytest.raises(Conflict):
                await nodes.join(joining, join_request("n1"))
            results = await asyncio.gather(
                *(nodes.join(joining, join_request(name)) for name in ("n1", "a1", "a2", "a3")),
                return_exceptions=True,
            )
        assert isinstance(results[0], Conflict | Unauthenticated), "whether the token was used up before"
        assert sum(isinstance(result, nodes.Joined) for result in results) == 1, "one machine a token"

"""Nodes over the API: joining once, what people see, tokens of modules."""

from __future__ import annotations

import time

import pytest

from llmagentos.api import nodes
from llmagentos.api.system import SystemInfo
from llmagentos.api.tokens import NewToken, TokenInfo, TokenRequest
from llmagentos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from support.node import join_request

pytestmark = pytest.mark.anyio


async def test_a_join_token_works_once(server):
    async with server.client() as admin:
        made = await admin.post("/api/v1/tokens", TokenRequest("join", "any"), NewToken)
    async with server.client(made.token) as joining:
        with pytest.raises(InvalidInput):
            await nodes.join(joining, join_request("self"))
        await nodes.join(joining, join_request("n1"))
        with pytest.raises(Unauthenticated):
            await nodes.join(joining, join_request("n2"))


async def test_a_taken_name_is_refused_and_the_token_stays_good(server, join):
    async with server.client() as admin, join(server, "n1"):
        made = await admin.post("/api/v1/tokens", TokenRequest("join", "any"), NewToken)
        async with server.client(made.token) as joining:
            with pytest.raises(Conflict, match="'n1'"):
                await nodes.join(joining, join_request("n1"))
            await nodes.join(joining, join_request("n2"))


async def test_a_join_whose_answer_was_lost_can_be_made_again(server):
    async with server.client() as admin:
        for _ in range(2):
            made = await admin.post("/api/v1/tokens", TokenRequest("join", "any"), NewToken)
            async with server.client(made.token) as joining:
                answer = await nodes.join(joining, join_request("n1"))
        async with server.client(answer.token) as node:
            await nodes.beat(node, nodes.Heartbeat())
        assert [found.name for found in await nodes.listing(admin)] == ["n1"]


async def test_a_machine_that_did_not_hear_the_answer_asks_again_with_its_used_token(server):
    async with server.client() as admin:
        made = await admin.post("/api/v1/tokens", TokenRequest("join", "once"), NewToken)
        request = join_request("n1")
        async with server.client(made.token) as joining:
            first = await nodes.join(joining, request)
            again = await nodes.join(joining, request)
            assert (again.certificate, again.name) == (first.certificate, "n1")
            for other in (join_request("n1"), join_request("n2")):  # another key, another node
                with pytest.raises(Unauthenticated, match="used already"):
                    await nodes.join(joining, other)
            async with server.client(again.token) as node:
                await nodes.beat(node, nodes.Heartbeat())
            with pytest.raises(Conflict, match="'n1'"):  # it has heard the answer
                await nodes.join(joining, request)
        assert made.info.id not in [token.id for token in await admin.get("/api/v1/tokens", list[TokenInfo])]
        assert [found.name for found in await nodes.listing(admin)] == ["n1"]


async def test_what_a_node_tells_is_shown(server, join):
    async with server.client() as admin, join(server, "n1") as node:
        unit = nodes.ModuleUnit("catalogue", "running", pid=7, restarts=1, started=time.time())
        beat = await nodes.beat(node.client, nodes.Heartbeat(load=[1.5], modules=[unit], time=time.time() + 100))
        assert beat.interval_s == 10.0
        shown = await nodes.show(admin, "n1")
        assert (shown.summary.state, shown.summary.os, shown.summary.load) == ("ready", "Debian 12", [1.5])
        assert shown.summary.modules == [unit]
        assert 40 < shown.clock_offset_s < 101
        with pytest.raises(NotFound) as caught:
            await nodes.show(admin, "n11")
        assert caught.value.hint == "did you mean 'n1'?"


async def test_module_tokens_are_of_kind_module_and_end_with_their_successors(server, join):
    async with server.client() as admin, join(server, "n1") as node:
        await nodes.allow(admin, "n1", "cat*")
        tokens = [await nodes.module_token(node.client, "catalogue") for _ in range(3)]
        assert all(token.startswith("lao_module_") for token in tokens)
        assert (await nodes.show(admin, "n1")).module_names == ["catalogue"]
        for token, good in zip(tokens, (False, True, True), strict=True):
            async with server.client(token) as module:
                # A module may not see the system: Forbidden says that it was recognised.
                with pytest.raises(Forbidden if good else Unauthenticated):
                    await module.get("/api/v1/system", SystemInfo)
        with pytest.raises(InvalidInput):
            await nodes.module_token(node.client, "a%20b")
        await nodes.remove(admin, "n1")
        async with server.client(tokens[2]) as module:
            with pytest.raises(Unauthenticated):
                await module.get("/api/v1/system", SystemInfo)

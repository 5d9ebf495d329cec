"""A server with a scripted engine: light work beside heavy, priorities, and what is shown of the queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from llmagentos.api.http import HttpClient
from llmagentos.api.llm import PRIORITY_HEADER, ModelQueue
from llmagentos.api.tokens import NewToken
from support.gate import Held
from support.scripted import Refuse, ScriptedEngine, Wait, scripted_engine
from support.server import ServerProcess, StartServer, eventually

pytestmark = pytest.mark.anyio

Tasks = list[asyncio.Task[Any]]


class Scene:
    """A server, an engine whose answers wait for the test, and callers with a token each."""

    def __init__(self, server: ServerProcess, engine: ScriptedEngine, held: Held) -> None:
        self.server = server
        self.engine = engine
        self.held = held
        self.tasks: Tasks = []
        self._clients: dict[str, openai.AsyncOpenAI] = {}

    async def caller(self, kind: str, name: str) -> openai.AsyncOpenAI:
        """A client of its own identity."""
        async with self.server.client() as admin:
            made = await admin.post("/api/v1/tokens", {"name": name, "kind": kind}, NewToken)
        client = openai.AsyncOpenAI(base_url=f"{self.server.url}/v1", api_key=made.token, max_retries=0, timeout=100)
        self._clients[name] = client
        return client

    def call(self, client: openai.AsyncOpenAI, text: str, **headers: str) -> asyncio.Task[Any]:
        """Ask without waiting for the answer."""
        asked = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": text}],
            extra_headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        self.tasks.append(asyncio.create_task(asked))
        return self.tasks[-1]

    async def queue(self) -> ModelQueue:
        async with self.server.client() as admin:
            return (await admin.get("/api/v1/models/queue", list[ModelQueue]))[0]

    async def waits(self, count: int) -> None:
        """Wait until so many calls wait."""
        while (await self.queue()).waiting_count != count:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.close()


@asynccontextmanager
async def scene(
    start_server: StartServer, *, policy: str = "fair", slots: int = 2, **more: Any
) -> AsyncIterator[Scene]:
    held = Held()
    async with scripted_engine(held) as engine:
        model = {"engine": "openai", "url": engine.url, "slots": slots} | more
        config = json.dumps({"scheduling": {"policy": policy}, "models": {"m": model}, "node": {"enabled": False}})
        made = Scene(await asyncio.to_thread(start_server, config), engine, held)
        try:
            yield made
        finally:
            await made.close()


@pytest.mark.parametrize(("policy", "heavy_before"), [("fair", 4), ("fcfs", 12)])
async def test_light_work_ends_early_beside_a_flood(start_server: StartServer, policy: str, heavy_before: int) -> None:
    async with scene(start_server, policy=policy) as it:
        heavy, light = await it.caller("module", "heavy"), await it.caller("module", "light")
        for number in range(12):
            it.call(heavy, f"h{number}")
        await it.held.begins(2)
        await it.waits(10)
        for number in range(2):  # one after the other
            text = f"l{number}"
            task = it.call(light, text)
            while text not in it.held.begun and "module:light" not in [w.tenant for w in (await it.queue()).waiting]:
                await asyncio.sleep(0.01)
            while text not in it.held.begun:
                await it.held.answer()
                await it.held.begins(min(13 + number, it.held.answered + 2))
            await it.held.answer(text)
            assert (await task).choices[0].message.content == "ok"
        before = it.held.begun[: it.held.begun.index("l1")]
        started = sum(text.startswith("h") for text in before)
        assert started <= heavy_before
        assert (started == 12) == (policy == "fcfs")


async def test_priorities_by_header_and_who_may_go_before_others(start_server: StartServer) -> None:
    async with scene(start_server, slots=1) as it:
        module, operator = await it.caller("module", "mod"), await it.caller("operator", "ann")
        it.call(module, "first")
        await it.held.begins(1)
        for count, (client, text, priority) in enumerate(
            [(module, "batch", "batch"), (module, "plain", "0"), (operator, "urgent", "realtime")], 1
        ):
            it.call(client, text, X_LLMAgentOS_Priority=priority)
            await it.waits(count)
        queue = await it.queue()
        assert [(w.tenant, w.priority, w.position, w.reason) for w in queue.waiting] == [
            ("operator:ann", -15, 1, "slots"),
            ("module:mod", 0, 2, "slots"),
            ("module:mod", 15, 3, "slots"),
        ]
        assert (queue.model, queue.slots, queue.running_count, queue.waiting_count) == ("m", 1, 1, 3)
        assert [r.caller for r in queue.running] == ["module:mod"]
        shown = await asyncio.to_thread(it.server.llmctl, "models", "--queue")
        lines = shown.stdout.splitlines()
        assert (shown.returncode, len(lines)) == (0, 5), shown.stderr
        assert lines[2].split()[:6] == ["m", "waiting", "1", "-", "operator:ann", "-15"]
        with pytest.raises(openai.PermissionDeniedError, match="goes before others"):
            await it.call(module, "x", X_LLMAgentOS_Priority="realtime")
        with pytest.raises(openai.BadRequestError, match="did you mean 'batch'"):
            await it.call(module, "x", X_LLMAgentOS_Priority="bach")
        assert await it.held.answer_all(4) == ["first", "urgent", "plain", "batch"]


async def test_a_full_queue_is_429_with_when_to_come_again(start_server: StartServer) -> None:
    async with scene(start_server, slots=1, queue=1) as it:
        client = await it.caller("module", "mod")
        it.call(client, "first")
        await it.held.begins(1)
        it.call(client, "second")
        await it.waits(1)
        with pytest.raises(openai.RateLimitError) as full:
            await it.call(client, "third")
        assert full.value.code == "queue_full"
        assert 1 <= int(full.value.response.headers["retry-after"]) <= 60


async def test_fallbacks_and_what_metrics_tell(start_server: StartServer) -> None:
    empty = Refuse(402, {"error": {"message": "Insufficient Balance"}})
    async with scripted_engine(lambda _: empty) as paid, scripted_engine(lambda _: ["free"]) as free:
        models = {
            "m": {"engine": "openai", "url": paid.url, "fallbacks": ["spare"]},
            "spare": {"engine": "openai", "url": free.url},
        }
        server = await asyncio.to_thread(start_server, json.dumps({"models": models, "node": {"enabled": False}}))
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as client:
            for _ in range(3):
                found = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
                assert (found.model, found.choices[0].message.content) == ("spare", "free")
        assert len(paid.requests) == 1
        headers = {"Authorization": f"Bearer {server.token}"}
        http = HttpClient(max_idle=0)
        text = (await http.request("GET", server.url, "/metrics", headers=headers)).body.decode()
        assert 'llmagentos_llm_fallbacks_total{failure="quota",fallback="spare",model="m"} 3.0' in text
        assert f'llmagentos_llm_breaker_open{{engine="{paid.url.removeprefix("http://")}",model="m"}} 1.0' in text
        shown = await asyncio.to_thread(server.llmctl, "models")
        assert "Insufficient Balance" in shown.stderr


async def test_a_call_for_a_run_uses_the_share_of_who_asked(start_server: StartServer) -> None:
    async with scene(start_server, slots=1) as it:
        blocker = await it.caller("module", "blocker")
        it.call(blocker, "first")
        await it.held.begins(1)
        async with it.server.client() as admin:
            spec = {"name": "teller", "model": "m", "instructions": "Tell."}
            await admin.put("/api/v1/agents/teller", spec, dict)
            run = await admin.post("/api/v1/runs", {"agent": "teller", "input": "Go."}, dict)
        await it.waits(1)
        (waiting,) = (await it.queue()).waiting
        assert (waiting.run_id, waiting.tenant, waiting.caller) == (run["id"], "admin:admin", "module:server")
        await it.held.answer_all(2)
        await eventually(lambda: it.tasks[0].done())


def test_the_header_has_its_name() -> None:
    assert PRIORITY_HEADER == "X-LLMAgentOS-Priority"


async def test_a_run_that_gave_way_says_so_and_goes_on(start_server: StartServer) -> None:
    first, urgent = asyncio.Event(), asyncio.Event()
    parts = iter([["One ", Wait(first), "two ", "three"], ["now", Wait(urgent)], ["three"]])
    async with scripted_engine(lambda _: next(parts)) as engine:
        model = {"engine": "openai", "url": engine.url, "slots": 1, "preemptive": True}
        config = json.dumps({"models": {"m": model}, "node": {"enabled": False}})
        server = await asyncio.to_thread(start_server, config)
        async with server.client() as admin:
            await admin.put("/api/v1/agents/teller", {"name": "teller", "model": "m", "instructions": "Tell."}, dict)
            run = await admin.post("/api/v1/runs", {"agent": "teller", "input": "Go.", "priority": 15}, dict)
            await eventually(lambda: engine.active)
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as client:
                call = asyncio.create_task(
                    client.chat.completions.create(
                        model="m",
                        messages=[{"role": "user", "content": "Now!"}],
                        extra_headers={PRIORITY_HEADER: "realtime"},
                    )
                )
                while not (await admin.get("/api/v1/models/queue", list[ModelQueue]))[0].waiting:
                    await asyncio.sleep(0.01)
                first.set()
                await eventually(lambda: len(engine.requests) == 2)
                shown = await asyncio.to_thread(server.llmctl, "ps")
                assert "preempted: a slot again (m #1)" in shown.stdout
                urgent.set()
                assert (await call).choices[0].message.content == "now"
            await eventually(lambda: len(engine.requests) == 3)
            assert engine.requests[2]["messages"][-1] == {"role": "assistant", "content": "One two "}
            done = await asyncio.to_thread(server.llmctl, "wait", run["id"])
            assert done.returncode == 0, done.stderr
            answer = await asyncio.to_thread(server.llmctl, "logs", run["id"])
            assert "One two three" in answer.stdout

"""The real small model gives its slots to more urgent calls, stops for paused runs, and says the same in the end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest

from llmagentos.api import control, runs
from llmagentos.api.agents import AgentSpec, apply
from llmagentos.api.http import HttpClient
from llmagentos.api.llm import CallInfo, ModelInfo
from llmagentos.api.runs import ModelCalled, ModelReplied, RunDelta
from support.server import ServerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]
"""On a busy machine the real model takes its time."""

PROMPTS = ["Tell me a story about a dog and a river.", "List the planets and describe each."]
TOKENS = 40
TRIES = 8
"""An answer may be whole before the test comes to disturb it."""


def asked(text: str, tokens: int = TOKENS) -> Any:
    return {
        "model": "default",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def told(client: openai.AsyncOpenAI, text: str, begun: asyncio.Event, urgency: str) -> tuple[str, Any]:
    heard, usage = "", None
    headers = {"X-LLMAgentOS-Priority": urgency}
    try:
        async for chunk in await client.chat.completions.create(**asked(text), extra_headers=headers):
            heard += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
            if len(heard) > 40:
                begun.set()
    finally:
        begun.set()
    return heard, usage


async def preemptions(server: ServerProcess) -> float:
    headers = {"Authorization": f"Bearer {server.token}"}
    text = (await HttpClient(max_idle=0).request("GET", server.url, "/metrics", headers=headers)).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("llmagentos_llm_preemptions_total{")]
    return sum(float(line.split()[-1]) for line in lines)


async def test_interrupted_and_not_interrupted_it_says_the_same(server: ServerProcess) -> None:
    """Both slots have an answer of low priority when two urgent calls come, one after the other."""
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=200
    ) as client:
        alone = [await told(client, text, asyncio.Event(), "batch") for text in PROMPTS]
        before = await preemptions(server)
        for _ in range(TRIES):
            for (heard, used), (text, usage) in zip(await disturbed(client), alone, strict=True):
                assert heard == text
                assert used.completion_tokens == usage.completion_tokens == TOKENS
                assert used.prompt_tokens == usage.prompt_tokens
            if await preemptions(server) > before:
                break
        else:
            pytest.fail("nothing was interrupted")


async def disturbed(client: openai.AsyncOpenAI) -> list[tuple[str, Any]]:
    begun = [asyncio.Event(), asyncio.Event()]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(told(client, text, event, "batch")) for text, event in zip(PROMPTS, begun, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        for number in range(2):
            urgent = await client.chat.completions.create(
                **asked(f"Say {number}.", 3), extra_headers={"X-LLMAgentOS-Priority": "realtime"}
            )
            async for _ in urgent:
                continue
    return [task.result() for task in tasks]


async def running(server: ServerProcess) -> int:
    async with server.client() as client:
        found = await client.get("/api/v1/models", list[ModelInfo])
    return next(model.running for model in found if "default" in model.aliases and model.use == "chat")


async def test_a_paused_programs_stream_stands_still_and_says_the_same(server: ServerProcess) -> None:
    async with server.client() as api:
        program = await control.begin(api, control.NewProgram("storyteller", ["python"], "test/1"))
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key=program.token, max_retries=0, timeout=200
        ) as client:
            whole = await told(client, PROMPTS[0], asyncio.Event(), "batch")
            for _ in range(TRIES):
                begun = asyncio.Event()
                task = asyncio.create_task(told(client, PROMPTS[0], begun, "batch"))
                await begun.wait()
                await control.pause(api, program.run)
                assert await running(server) == 0
                await asyncio.sleep(0.2)
                stood = not task.done()
                await control.resume(api, program.run)
                text, usage = await task
                assert (text, usage.total_tokens) == (whole[0], whole[1].total_tokens)
                if stood:
                    break
            else:
                pytest.fail("it never stood still")
        await control.end(api, program.run, control.Exit(program.fence, 0))


async def blocked(server: ServerProcess) -> AsyncExitStack:
    """Urgent calls that have both slots until it is closed."""
    stack = AsyncExitStack()
    client = await stack.enter_async_context(
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=200)
    )
    for text in PROMPTS:
        call = await client.chat.completions.create(
            **asked(text, 400), extra_headers={"X-LLMAgentOS-Priority": "realtime"}
        )
        stack.push_async_callback(call.close)
    return stack


async def test_a_paused_agents_answer_goes_on_where_it_was(server: ServerProcess) -> None:
    async with server.client() as api:
        await apply(api, AgentSpec(name="storyteller", model="default", instructions="You tell stories."))
        heard, paused, usage = list[str](), False, None
        async with await blocked(server) as blocking:
            run = (await runs.start(api, "storyteller", PROMPTS[0])).id
            async for item in runs.follow(api, run):
                await blocking.aclose()  # from now on every word is heard
                if isinstance(item, RunDelta):
                    heard[-1] += item.text
                    if not paused and len(heard[-1]) > 40:
                        paused = True
                        await control.pause(api, run)
                        assert await running(server) == 0
                        await control.resume(api, run)
                elif isinstance(item.data, ModelCalled):
                    heard.append("")
                elif isinstance(item.data, ModelReplied):
                    usage = item.data
        answer = (await runs.get(api, run)).answer
        assert answer is not None
        assert len(heard) == 2
        assert heard[1].startswith(heard[0])
        assert heard[1].strip() == answer.strip()
        assert usage is not None
        made: list[CallInfo] = []
        while len(made) < 2:
            made = await api.get(f"/api/v1/models/calls?run={run}", list[CallInfo])
        assert sorted(call.status for call in made) == ["cut_off", "succeeded"]
        assert sum(call.tokens_in + call.tokens_out for call in made) == usage.tokens_in + usage.tokens_out

"""The real small model gives its slots to more urgent calls and says the same in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from llmagentos.api.http import HttpClient
from support.server import ServerProcess

pytestmark = pytest.mark.anyio

PROMPTS = ["Tell me a story about a dog and a river.", "List the planets and describe each."]
TOKENS = 40


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
    async for chunk in await client.chat.completions.create(**asked(text), extra_headers=headers):
        heard += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
        if len(heard) > 40:
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
        base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60
    ) as client:
        alone = [await told(client, text, asyncio.Event(), "batch") for text in PROMPTS]
        before = await preemptions(server)
        begun = [asyncio.Event(), asyncio.Event()]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(told(client, text, event, "batch"))
                for text, event in zip(PROMPTS, begun, strict=True)
            ]
            await asyncio.gather(*(event.wait() for event in begun))
            for number in range(2):
                urgent = await client.chat.completions.create(
                    **asked(f"Say {number}.", 3), extra_headers={"X-LLMAgentOS-Priority": "realtime"}
                )
                async for _ in urgent:
                    continue
        assert await preemptions(server) - before >= 1
        for task, (text, usage) in zip(tasks, alone, strict=True):
            assert task.result()[0] == text
            assert task.result()[1].completion_tokens == usage.completion_tokens == TOKENS
            assert task.result()[1].prompt_tokens == usage.prompt_tokens

"""What the official client asks for reaches the engine as it was asked, and the engine's answer the client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from llmagentos.core.config.schema import OpenAI
from llmagentos.security.identity import Identity, Kind
from support.gate import ask, gate
from support.scripted import Raw, ScriptedEngine, scripted_engine
from support.server import StartServer

pytestmark = pytest.mark.anyio

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a town",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
        },
    }
]
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "mood", "strict": True, "schema": {"type": "object", "properties": {}}},
}
CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"town": "Bern"}'},
}
LIKELY = {"content": [{"token": "hi", "logprob": -0.25, "bytes": [104, 105], "top_logprobs": []}]}


def config(engine: ScriptedEngine) -> str:
    return f"models: {{far: {{engine: openai, url: '{engine.url}', model: theirs, pass_priority: true}}}}\n"


async def test_all_that_is_asked_and_answered(start_server: StartServer) -> None:
    async with scripted_engine(lambda _: [{"content": "hi", "tool_calls": [CALL]}]) as engine:
        server = start_server(config(engine))
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as client:
            asked: Any = {
                "seed": 7,
                "temperature": 0.25,
                "top_p": 0.5,
                "stop": ["END"],
                "logprobs": True,
                "top_logprobs": 2,
                "tools": TOOLS,
                "tool_choice": {"type": "function", "function": {"name": "weather"}},
                "parallel_tool_calls": False,
                "response_format": FORMAT,
                "frequency_penalty": 0.5,
                "logit_bias": {"42": -100},
                "user": "li",
            }
            answer = await client.chat.completions.create(
                model="far",
                messages=[{"role": "user", "content": "hi"}],
                extra_headers={"X-LLMAgentOS-Priority": "batch"},
                **asked,
            )
            message = answer.choices[0].message
            assert message.tool_calls is not None
            assert message.tool_calls[0].to_dict() == {k: v for k, v in CALL.items() if k != "index"} | {
                "function": {"name": "weather", "arguments": '{"town": "Bern"}'}
            }
            stream = await client.chat.completions.create(
                model="far", messages=[{"role": "user", "content": "hi"}], stream=True, **asked
            )
            pieces = [chunk.choices[0].delta.tool_calls async for chunk in stream if chunk.choices]
            assert [call.function.name for calls in pieces if calls for call in calls if call.function] == ["weather"]
        first, second = engine.requests
        for request in (first, second):
            assert {key: request[key] for key in asked} == asked
            assert (request["model"], request["stream"]) == ("theirs", True)
        assert (first["priority"], second["priority"]) == (15, 0)  # as vLLM orders them: lower is sooner


async def test_logprobs_come_back(start_server: StartServer) -> None:
    line = json.dumps({"choices": [{"index": 0, "delta": {"content": "hi"}, "logprobs": LIKELY}]})
    async with scripted_engine(lambda _: [Raw(f"data: {line}\n\n")]) as engine:
        server = start_server(config(engine))
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as client:
            answer = await client.chat.completions.create(
                model="far", messages=[{"role": "user", "content": "hi"}], logprobs=True
            )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert (logprobs.content[0].token, logprobs.content[0].logprob) == ("hi", -0.25)


async def test_priority_is_sent_only_where_it_is_known(tmp_path: Path) -> None:
    async with scripted_engine(lambda _: ["hi"]) as engine:
        models = {"knows": OpenAI(url=engine.url, pass_priority=True), "other": OpenAI(url=engine.url)}
        async with gate(tmp_path, models) as here:
            for model in models:
                await here.gateway.complete(ask(model=model), Identity(Kind.OPERATOR, "li"), priority=-5)
        assert [request.get("priority") for request in engine.requests] == [-5, None]

"""A program of the OpenAI Agents SDK unchanged under `llmctl exec`: it speaks the Responses API by itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from support.scripted import Hang, ScriptedEngine, Step, scripted_engine
from support.server import ServerProcess, StartServer, eventually

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(importlib.util.find_spec("agents") is None, reason="needs openai-agents"),
]

PROGRAM = """
import asyncio
from agents import Agent, Runner, function_tool

@function_tool
def weather(city: str) -> str:
    "The weather in a city."
    return f"It rains in {city}."

agent = Agent(name="guide", instructions="You help travellers.", tools=[weather])

async def main():
    print((await Runner.run(agent, "Umbrella for Bergen?")).final_output)
    streamed = Runner.run_streamed(agent, "And for Oslo?")
    async for event in streamed.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="|", flush=True)
    print(streamed.final_output)

asyncio.run(main())
"""


def traveller(request: dict[str, Any]) -> Sequence[Step]:
    """Asks for the weather, then says it."""
    last = request["messages"][-1]
    if last["role"] == "tool":
        return ["Yes: ", last["content"]]
    city = "Oslo" if "Oslo" in last["content"] else "Bergen"
    function = {"name": "weather", "arguments": '{"city": '}
    return [
        {"tool_calls": [{"index": 0, "id": f"call-{city}", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": f'"{city}"}}'}}]},
    ]


async def started(start_server: StartServer, engine: ScriptedEngine, **more: Any) -> ServerProcess:
    models = {"talker": {"engine": "openai", "url": engine.url, "aliases": ["default"]}}
    server = await asyncio.to_thread(start_server, json.dumps({"models": models, "node": {"enabled": False}} | more))
    (server.directory / "travel.py").write_text(PROGRAM)
    return server


async def llmctl(server: ServerProcess, *arguments: str) -> Any:
    return await asyncio.to_thread(server.llmctl, *arguments)


EXEC = ("exec", "--agent", "guide", "--", sys.executable, "travel.py")


async def test_its_calls_are_one_run(start_server: StartServer) -> None:
    async with scripted_engine(traveller) as engine:
        limits = {"org/default/guide": {"calls": 100}}
        server = await started(start_server, engine, budgets={"limits": limits})
        done = await llmctl(server, *EXEC)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "Yes: It rains in Bergen.",
            "Yes: |It rains in Oslo.|Yes: It rains in Oslo.",
        ]
        (run,) = json.loads((await llmctl(server, "ps", "-a", "--json")).stdout)
        assert (run["agent"], run["state"], run["model_calls"]) == ("guide", "succeeded", 4)
        async with server.client() as admin:
            calls = await admin.get(f"/api/v1/models/calls?run={run['id']}", list[dict[str, Any]])
        assert [(call["status"], call["caller"]) for call in calls] == [("succeeded", f"run:{run['id']}")] * 4
        spent = json.loads((await llmctl(server, "budget", "show", "--json")).stdout)
        assert '"calls": 4' in json.dumps(spent)
        asked = engine.requests[0]
        assert asked["messages"][0] == {"role": "system", "content": "You help travellers."}
        assert [tool["function"]["name"] for tool in asked["tools"]] == ["weather"]
        assert [message["role"] for message in engine.requests[1]["messages"]] == [
            "system",
            "user",
            "assistant",
            "tool",
        ]


async def test_a_kill_ends_it_and_its_call(start_server: StartServer) -> None:
    async with scripted_engine(lambda _: ["Well", Hang()]) as engine:
        server = await started(start_server, engine)
        program = asyncio.create_task(llmctl(server, *EXEC))
        await eventually(lambda: engine.active, within=60)
        (run,) = json.loads((await llmctl(server, "ps", "--json")).stdout)
        assert (await llmctl(server, "kill", run["id"])).returncode == 0
        await eventually(lambda: engine.hung_up == 1)
        assert (await program).returncode != 0

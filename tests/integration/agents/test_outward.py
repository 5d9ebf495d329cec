"""The agents and services of a server as others reach them: MCP, A2A and AG-UI, each with a client that is not ours."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    TaskState,
)
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from integration.agents.conftest import ModuleProcess
from llmagentos.api.tokens import NewToken, TokenRequest
from support.server import ServerProcess
from support.talker import Talker

ANSWER = "The kettle costs 39.90 EUR."
DISCREET = "{kind: Agent, name: discreet, model: talker, guardrails: {redact: [email], where: [prompts, logs]}}"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:a2a.*")


@pytest.fixture(scope="module")
def talker() -> Iterator[Talker]:
    with Talker(lambda _: ANSWER).running() as running:
        yield running


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, talker: Talker) -> Iterator[ServerProcess]:
    """One server with the shop's module and two agents for all tests here."""
    directory = tmp_path_factory.mktemp("outward")
    server = ServerProcess(directory, talker.config).start()
    module = ModuleProcess(server, directory)
    try:
        module.start()
        (directory / "friend.yaml").write_text("{kind: Agent, name: friend, model: talker}")
        (directory / "discreet.yaml").write_text(DISCREET)
        assert server.llmctl("apply", "-f", "friend.yaml", "-f", "discreet.yaml").returncode == 0
        yield server
    finally:
        module.stop()
        server.stop()


@pytest.fixture(autouse=True)
def plain_talk(talker: Talker) -> None:
    talker.say, talker.endless = lambda _: ANSWER, False


async def token_of(house: ServerProcess, kind: str) -> str:
    async with house.client() as admin:
        return (await admin.post("/api/v1/tokens", TokenRequest(kind, "somebody"), NewToken)).token


# MCP ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def mcp_client(house: ServerProcess, token: str, mode: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        transport = streamable_http_client(f"{house.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy", "auto"])
def test_agents_and_services_are_mcp_tools_for_clients_of_both_eras(house: ServerProcess, mode: str) -> None:
    async def main() -> None:
        async with mcp_client(house, house.token, mode) as client:
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert {"ask_friend", "ask_sums", "shop__search", "shop__slow"} <= set(tools)
            assert tools["shop__search"].annotations is not None
            assert tools["shop__search"].annotations.idempotent_hint is True
            assert tools["ask_friend"].input_schema["required"] == ["request"]

            found = await client.call_tool("shop__search", {"query": "kettle"})
            assert not found.is_error
            assert found.structured_content is not None
            assert found.structured_content["result"][0]["name"] == "Blue Kettle"

            progress: list[float] = []

            async def told(done: float, *_: Any) -> None:
                progress.append(done)

            answered = await client.call_tool("ask_friend", {"request": "hello"}, progress_callback=told)
            assert answered.structured_content is not None
            assert answered.structured_content["answer"] == ANSWER
            assert progress == sorted(progress)

            wrong = await client.call_tool("ask_friend", {"question": "hello"})
            assert wrong.is_error
            with pytest.raises(MCPError, match="there is no tool 'ask_nobody'"):
                await client.call_tool("ask_nobody", {"request": "x"})

    asyncio.run(main())


def test_mcp_shows_only_what_the_caller_may_use(house: ServerProcess) -> None:
    async def main() -> None:
        module = await token_of(house, "module")
        async with mcp_client(house, module, "auto") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert "shop__search" in names
            assert not any(name.startswith("ask_") for name in names)  # modules ask no agents
            with pytest.raises(MCPError, match="no tool"):
                await client.call_tool("ask_friend", {"request": "hello"})
            await client.call_tool("shop__search", {"query": "kettle"})
        assert '"target": "/mcp shop__search"' in house.log()  # who called what is in the audit log
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.post(f"{house.url}/mcp", json={})).status_code == 401
            viewer = {"Authorization": f"Bearer {await token_of(house, 'viewer')}"}
            assert (await http.post(f"{house.url}/mcp", json={}, headers=viewer)).status_code == 403

    asyncio.run(main())


# A2A ------------------------------------------------------------------------------------------------


def message(text: str, *, context: str = "", name: str | None = None) -> Message:
    return Message(
        message_id=name or uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)], context_id=context
    )


@asynccontextmanager
async def a2a_client(
    house: ServerProcess, binding: str, *, agent: str = "friend", streaming: bool = False
) -> AsyncIterator[Any]:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {house.token}"}, timeout=60) as http:
        card = await A2ACardResolver(http, f"{house.url}/a2a/{agent}").get_agent_card()
        assert card.security_schemes["bearer"].http_auth_security_scheme.scheme == "Bearer"
        assert [i.protocol_binding for i in card.supported_interfaces] == ["JSONRPC", "HTTP+JSON"]
        config = ClientConfig(
            streaming=streaming,
            httpx_client=http,
            supported_protocol_bindings=[binding],
            use_client_preference=True,
        )
        yield ClientFactory(config).create(card)


async def last_of(events: AsyncIterator[Any]) -> Any:
    return [event async for event in events][-1]


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
def test_an_agent_is_an_a2a_agent(house: ServerProcess, binding: str) -> None:
    async def main() -> None:
        async with a2a_client(house, binding) as client:
            request = SendMessageRequest(message=message("hello", name="m-1"))
            task = (await last_of(client.send_message(request))).task
            assert task.status.state == TaskState.TASK_STATE_COMPLETED
            assert task.artifacts[0].parts[0].text == "The kettle costs 39.90 EUR."
            assert task.history[0].parts[0].text == "hello"
            again = (await last_of(client.send_message(request))).task  # a client that is not sure
            assert again.id == task.id
            follow = SendMessageRequest(message=message("and then?", context=task.context_id))
            assert (await last_of(client.send_message(follow))).task.context_id == task.context_id
            assert (await client.get_task(GetTaskRequest(id=task.id))).id == task.id
            listed = await client.list_tasks(ListTasksRequest(page_size=1))
            assert len(listed.tasks) == 1
            assert listed.next_page_token == "1"
            with pytest.raises(Exception, match=r"there is no run|not found"):
                await client.get_task(GetTaskRequest(id="nosuchtask00"))
            with pytest.raises(Exception, match=r"has ended|cannot be canceled"):
                await client.cancel_task(CancelTaskRequest(id=task.id))

    asyncio.run(main())


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
def test_a_task_is_streamed_and_cancelled(house: ServerProcess, talker: Talker, binding: str) -> None:
    async def main() -> None:
        async with a2a_client(house, binding, streaming=True) as client:
            events = [event async for event in client.send_message(SendMessageRequest(message=message("hello")))]
            kinds = [event.WhichOneof("payload") for event in events]
            assert kinds[0] == "task"
            assert kinds[-1] == "status_update"
            assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
            whole = [event.artifact_update for event in events if event.HasField("artifact_update")][-1]
            assert whole.artifact.parts[0].text == "The kettle costs 39.90 EUR."
            assert whole.last_chunk
        talker.endless = True
        async with a2a_client(house, binding) as client:
            now = SendMessageConfiguration(return_immediately=True)
            sent = SendMessageRequest(message=message("for ever"), configuration=now)
            task = (await last_of(client.send_message(sent))).task
            assert task.status.state in (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING)
            stopped = await client.cancel_task(CancelTaskRequest(id=task.id))
            assert stopped.status.state == TaskState.TASK_STATE_CANCELED

    asyncio.run(main())


def test_the_server_has_a_card_of_all_its_agents_and_needs_an_identity_for_it(house: ServerProcess) -> None:
    auth = {"Authorization": f"Bearer {house.token}", "A2A-Version": "1.0"}
    with httpx.Client(base_url=house.url, timeout=60) as http:
        assert http.get("/.well-known/agent-card.json").status_code == 401
        card = http.get("/.well-known/agent-card.json", headers=auth).json()
        assert [skill["id"] for skill in card["skills"]] == ["discreet", "friend", "sums"]
        assert card["supportedInterfaces"][0]["url"] == f"{house.url}/a2a"
        assert card["securityRequirements"] == [{"schemes": {"bearer": {}}}]
        sent = {"messageId": "x", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": sent}}
        refused = http.post("/a2a", json=call, headers=auth).json()
        assert "metadata.agent must name one of the agents: discreet, friend, sums" in refused["error"]["message"]
        call["params"] = {"message": sent, "metadata": {"agent": "friend"}}
        done = http.post("/a2a", json=call, headers=auth).json()
        assert done["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert http.post("/a2a/nobody", json=call, headers=auth).status_code == 404
        old = {"kind": "message", "messageId": "y", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}
        before = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": old}}
        found = http.post("/a2a/friend", json=before, headers={"Authorization": auth["Authorization"]}).json()
        assert found["result"]["status"]["state"] == "completed"  # as version 0.3 says it


# AG-UI ----------------------------------------------------------------------------------------------


def agui(house: ServerProcess, agent: str, text: str, *, run: str = "r-1") -> list[dict[str, Any]]:
    given = {
        "threadId": "thread 1",
        "runId": run,
        "state": {},
        "messages": [{"id": "1", "role": "user", "content": text}],
        "tools": [],
        "context": [],
        "forwardedProps": {},
    }
    headers = {"Authorization": f"Bearer {house.token}", "Accept": "text/event-stream"}
    url = f"{house.url}/api/v1/agui/{agent}"
    with httpx.Client(timeout=60) as http, http.stream("POST", url, json=given, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = list(response.iter_lines())
    assert all(line.startswith(("data: ", ":")) or not line for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_a_run_is_streamed_as_ag_ui_events(house: ServerProcess, talker: Talker) -> None:
    def say(request: dict[str, Any]) -> str:
        results = sum("Result of" in message["content"] for message in request["messages"])
        if "response_format" not in request:
            return "Twice two is four."
        return '{"tool": "answer"}' if results else '{"tool": "double", "arguments": {"number": 2}}'

    talker.say = say
    events = agui(house, "sums", "two and two")
    kinds = [event["type"] for event in events]
    assert kinds[0] == "RUN_STARTED"
    assert kinds[-1] == "RUN_FINISHED"
    assert events[0]["threadId"] == events[-1]["threadId"] == "thread 1"
    first = kinds.index("TOOL_CALL_START")
    assert kinds[first : first + 4] == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert events[first]["toolCallName"] == "double"
    assert json.loads(events[first + 1]["delta"]) == {"number": 2}
    assert kinds.count("STEP_STARTED") == kinds.count("STEP_FINISHED") == 3
    said = "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
    assert said == "Twice two is four."
    again = agui(house, "sums", "two and two")  # the connection was lost: the same run, told once more
    assert again[1]["snapshot"] == events[1]["snapshot"]
    assert again[-1]["result"]["answer"] == "Twice two is four."


def test_who_asks_over_ag_ui_reads_the_values_that_the_log_hides(house: ServerProcess, talker: Talker) -> None:
    talker.say = lambda request: f"You said: {request['messages'][-1]['content']}"
    events = agui(house, "discreet", "I am ada@example.com", run="r-2")
    said = "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
    assert said == events[-1]["result"]["answer"] == "You said: I am ada@example.com"
    assert talker.requests[-1]["messages"][-1]["content"] == "I am <EMAIL_1>"
    assert "ada@example.com" not in house.llmctl("logs", events[-1]["result"]["run"]).stdout

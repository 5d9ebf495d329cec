"""What an agent in Python has of the server: MCP servers, other agents, remote ones, playbooks, memory, approvals."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.agents.conftest import until
from llmagentos.api import agents, control, hosting, jobs, runs
from llmagentos.api.agents import AgentSpec, ToolUse
from llmagentos.api.client import ApiClient
from llmagentos.api.hosting import Append, Claim, ClaimRequest, HostedAgent, ToolCall, ToolsRequest
from llmagentos.api.runs import ToolCalled
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core.clock import SystemClock
from llmagentos.core.errors import Conflict, Forbidden
from llmagentos.storage.database import Database
from llmagentos.storage.remote_tasks import RemoteTasks
from support.node import NodeProcess, bundle
from support.server import ServerProcess
from support.talker import Talker

PLAYBOOK = bundle(
    {"site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug: {msg: 'for {{ who }}'}\n"}
)
FILES = """
import sys, time
from pathlib import Path
from mcp.server import MCPServer

server = MCPServer("files", version="1.0")
here = Path(sys.argv[1])

@server.tool()
def add(a: int, b: int) -> int:
    "Adds two numbers."
    return a + b

@server.tool()
def pay(amount: int) -> str:
    "Pays, and takes its time."
    with (here / "paid").open("a") as file:
        file.write(f"{amount}\\n")
    deadline = time.monotonic() + 60
    while not (here / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    (here / "over").touch()
    return "paid"

server.run("stdio")
"""
DESK = """
import sys
from typing import TypedDict
from llmagentos import Agent, Module, tool
from llmagentos.api.agents import MemoryUse, ToolUse

@tool(idempotent=True)
def double(number: int) -> int:
    "Twice the number."
    return 2 * number

class Form(TypedDict):
    city: str

module = Module("desk")
module.register_agent(Agent("desk", model="talker", instructions="DESK", memory=MemoryUse(long_term=True), tools=[
    double,
    ToolUse(mcp="files", only=["add"]),
    ToolUse(mcp="files", only=["pay"], approval="required"),
    ToolUse(agent="friend"),
    ToolUse(a2a="me", name="remote"),
    ToolUse(playbook="site.yml", bundle=sys.argv[1], nodes=["web1"], vars={"who": {"type": "string"}}),
]))
module.register_agent(Agent("form", model="talker", instructions="FORM", output=Form))
module.register_agent(Agent("greedy", model="talker", instructions="GREEDY", tools=[ToolUse(mcp="private")]))
module.start()
"""
FRIEND = "{kind: Agent, name: friend, model: talker, instructions: FRIEND}"
ANSWER = '{"tool": "answer"}'


def call(tool: str, **arguments: Any) -> str:
    return json.dumps({"tool": tool, "arguments": arguments})


class Script:
    """What the model says: the calls of `desk`, one after the other, and what others answer."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate: Path | None = None
        self.prompts: list[str] = []

    def __call__(self, request: dict[str, Any]) -> str:
        self.prompts.append(json.dumps(request["messages"], ensure_ascii=False))
        system = request["messages"][0]["content"]
        if "FORM" in system:
            return '{"city": "Utrecht"}'
        if "DESK" not in system:
            deadline = time.monotonic() + 60
            while self.gate is not None and not self.gate.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            return "I am fine."
        if "response_format" not in request:
            return "done"
        results = sum("Result of" in message["content"] for message in request["messages"])
        return [*self.calls, ANSWER][min(results, len(self.calls))]


class House(ServerProcess):
    """The server with a module `desk` beside it, which has a token of its own."""

    script: Script
    here: Path
    desk: subprocess.Popen[bytes] | None = None

    def start_desk(self) -> None:
        """Start the module and wait until it asks for runs."""
        env = {key: value for key, value in self.env.items() if not key.startswith("LLMAGENTOS_")}
        token = asyncio.run(token_of(self, "desk"))
        env |= {"LLMAGENTOS_SERVER": self.url, "LLMAGENTOS_TOKEN": token}
        digest = hashlib.sha256(PLAYBOOK).hexdigest()
        before = self.desk_log().count('"registered"')
        with (self.directory / "desk.log").open("ab") as log:
            self.desk = subprocess.Popen(
                [sys.executable, "desk.py", digest], env=env, cwd=self.directory, stdout=log, stderr=log
            )
        until(lambda: self.desk_log().count('"registered"') > before, self.desk_log)
        until(lambda: any(one["name"] == "greedy" for one in self.asked("/api/v1/agents")), self.desk_log)

    def desk_log(self) -> str:
        file = self.directory / "desk.log"
        return file.read_text() if file.exists() else ""

    def kill_desk(self) -> None:
        assert self.desk is not None
        self.desk.kill()
        self.desk.wait(10)

    def asked(self, path: str) -> Any:
        async def main() -> Any:
            async with self.client() as client:
                return await client.get(path, Any)  # type: ignore[arg-type]

        return asyncio.run(main())

    def begin(self, *calls: str) -> str:
        """Ask `desk` for these calls; the run."""
        self.script.calls = list(calls)

        async def main() -> str:
            async with self.client() as client:
                return (await runs.start(client, "desk", "Do it.")).id

        return asyncio.run(main())

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.asked(f"/api/v1/runs/{run}")
        return found

    def ended(self, run: str) -> list[dict[str, Any]]:
        """The tool answers of the run, once it has ended well."""
        until(lambda: self.run(run)["ended"], lambda: self.log()[-2000:] + self.desk_log()[-2000:], within=90)
        assert self.run(run)["state"] == "succeeded", self.run(run)
        return self.told(run, "tool_answered")

    def told(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [each["data"] for each in self.asked(f"/api/v1/runs/{run}/events") if each["data"]["type"] == kind]


async def token_of(house: ServerProcess, module: str) -> str:
    async with house.client() as admin:
        return (await admin.post("/api/v1/tokens", TokenRequest("module", module), NewToken)).token


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("desk")
    (directory / "files.py").write_text(FILES)
    (directory / "desk.py").write_text(DESK)
    (directory / "friend.yaml").write_text(FRIEND)
    (directory / "token").touch(0o600)
    script = Script()
    with Talker(script).running() as talker:
        house = House(directory)
        house.script, house.here = script, directory
        house.file.write_text(
            talker.config
            + f"""
mcp:
  files: {{command: ['{sys.executable}', '{directory / "files.py"}', '{directory}']}}
  private: {{command: [/bin/false]}}
a2a:
  me: {{url: '{house.url}/a2a/friend', token: {{file: '{directory / "token"}'}}}}
tools:
  deny: {{'operator:eve': ['files.*']}}
  modules:
    desk: [mcp:files, 'agent:*', a2a:me, playbook:site.yml]
    rogue: [mcp:files]
"""
        )
        house.start()
        (directory / "token").write_text(house.token)
        try:
            assert house.llmctl("apply", "-f", "friend.yaml").returncode == 0
            house.start_desk()
            yield house
        finally:
            if house.desk is not None:
                house.kill_desk()
            house.stop()


@pytest.fixture(autouse=True)
def fresh(house: House) -> None:
    house.script.calls, house.script.gate, house.script.prompts = [], None, []
    for name in ("go", "paid", "over"):
        (house.here / name).unlink(missing_ok=True)


def test_it_calls_what_agents_in_yaml_call(house: House) -> None:
    run = house.begin(
        call("double", number=4),
        call("files.add", a=2, b=3),
        call("friend", request="how are you?"),
        call("remote", request="and you?"),
        call("remember", text="Parcels go to Utrecht."),
        call("recall", query="Where do parcels go?"),
    )
    doubled, added, here, there, _, known = [one.get("result") for one in house.ended(run)]
    assert (doubled, added, here, there) == (8, {"result": 5}, "I am fine.", "I am fine.")
    assert known[0]["text"] == "Parcels go to Utrecht."
    below = [one for one in house.asked("/api/v1/runs?all=1") if one["parent"] == run]
    assert [(one["agent"], one["created_by"]) for one in below] == [("friend", house.run(run)["created_by"])]
    shown = json.loads(house.llmctl("agents", "show", "desk", "--json").stdout)["tools"]
    assert {tool["name"]: tool["source"] for tool in shown}["files.add"] == "mcp:files"


def test_a_playbook_is_a_job_of_the_run(house: House, tmp_path: Path) -> None:
    async def upload() -> None:
        async with house.client() as client:
            await jobs.upload_bundle(client, hashlib.sha256(PLAYBOOK).hexdigest(), PLAYBOOK)

    asyncio.run(upload())
    node = NodeProcess(tmp_path, house, "web1")
    asyncio.run(node.join())
    try:
        run = house.begin(call("site", who="ada"))
        (done,) = house.ended(run)
    finally:
        node.stop()
    assert done["result"]["state"] == "succeeded", done
    made = house.asked(f"/api/v1/jobs/{done['result']['job']}")
    assert made["summary"]["created_by"] == f"run:{run}"


def test_files_a_session_and_a_form(house: House) -> None:
    (house.directory / "notes.txt").write_text("The parcel is in Utrecht.")
    done = house.llmctl("ask", "form", "Where is it?", "-f", "notes.txt", "--session", "parcel", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == {"city": "Utrecht"}
    assert "The parcel is in Utrecht." in house.script.prompts[-1]
    assert house.llmctl("ask", "form", "Still?", "--session", "parcel").returncode == 0
    assert "Where is it?" in house.script.prompts[-1]


def test_a_call_waits_for_a_person(house: House) -> None:
    (house.here / "go").touch()
    run = house.begin(call("files.pay", amount=7))
    until(lambda: house.run(run)["state"] == "waiting_approval", house.desk_log)
    assert not (house.here / "paid").exists()
    assert house.llmctl("approve", run).returncode == 0
    assert [one["result"] for one in house.ended(run)] == [{"result": "paid"}]
    assert (house.here / "paid").read_text() == "7\n"


def test_what_its_module_was_not_granted_it_cannot_use(house: House) -> None:
    done = house.llmctl("ask", "greedy", "Do it.")
    assert done.returncode == 1
    assert "may not use mcp:private" in done.stderr
    assert "modules" in done.stderr


def test_after_kill_9_of_the_module_it_waits_on_for_the_same_run_and_does_not_pay_again(house: House) -> None:
    house.script.gate = house.here / "go"
    asking = house.begin(call("friend", request="wait for me"))
    until(lambda: below(house, asking), house.desk_log)
    payment = paying(house, 9)
    house.kill_desk()
    house.start_desk()
    (house.here / "go").touch()
    assert [one["result"] for one in house.ended(asking)] == ["I am fine."]
    assert len(below(house, asking)) == 1
    (answered,) = house.ended(payment)
    assert "whether it was carried out is not known" in answered["error"]
    assert (house.here / "paid").read_text() == "9\n"
    until((house.here / "over").exists)  # the program of the MCP server is free for the next test


def test_after_kill_9_of_the_server_a_payment_is_not_made_again(house: House) -> None:
    run = paying(house, 5)
    house.kill()
    house.start()
    (house.here / "go").touch()
    (answered,) = house.ended(run)
    assert answered["error"]
    assert (house.here / "paid").read_text() == "5\n"


def test_after_kill_9_of_the_server_it_waits_on_for_the_same_remote_task(house: House) -> None:
    house.script.gate = house.here / "go"
    run = house.begin(call("remote", request="wait for the task"))

    async def noted() -> str | None:
        database = Database(house.database)
        try:
            return await RemoteTasks(database, SystemClock()).find(run, "call-1")
        finally:
            await database.aclose()

    until(lambda: asyncio.run(noted()), house.desk_log)
    house.kill()
    house.start()
    (house.here / "go").touch()
    (answered,) = house.ended(run)
    assert (answered.get("error"), answered["result"]) == (None, "I am fine.")
    assert len([one for one in house.asked("/api/v1/runs?all=1") if one["input"] == "wait for the task"]) == 1


def paying(house: House, amount: int) -> str:
    """A run that pays `amount`, agreed to, and has no answer yet."""
    run = house.begin(call("files.pay", amount=amount))
    until(lambda: house.run(run)["state"] == "waiting_approval", house.desk_log)
    assert house.llmctl("approve", run).returncode == 0
    until((house.here / "paid").exists, house.desk_log)
    return run


def below(house: House, run: str) -> list[str]:
    return [one["id"] for one in house.asked("/api/v1/runs?all=1") if one["parent"] == run]


async def claimed(house: House, module: ApiClient, spec: AgentSpec, *, by: ApiClient) -> Claim:
    """A run of `spec`, which `by` asked for and the module `rogue` has."""
    request = ClaimRequest("rogue", [HostedAgent(spec)], "host/1", 0.0)
    await hosting.claim(module, request)
    await runs.start(by, spec.name, "Do it.")
    claim = await hosting.claim(module, request)
    assert claim is not None
    return claim


@pytest.mark.anyio
async def test_the_server_believes_the_log_and_not_the_module(house: House) -> None:
    (house.here / "go").touch()
    spec = AgentSpec(
        name="rogue",
        model="talker",
        tools=[
            ToolUse(mcp="files", only=["add"]),
            ToolUse(mcp="files", only=["pay"], approval="required"),
            ToolUse(service="shop.search", allow=["admin:nobody"]),
        ],
    )
    async with house.client() as admin, house.client(await token_of(house, "rogue")) as module:
        claim = await claimed(house, module, spec, by=admin)
        run, fence, after = claim.run, claim.fence, claim.events[-1].seq

        async def begin(call_id: str, name: str, **arguments: Any) -> None:
            nonlocal after
            made = await hosting.append(module, run, Append(fence, after, [ToolCalled(call_id, name, arguments)]))
            after = made[-1].seq

        async def make(call_id: str, *, fence: int = fence, **arguments: Any) -> Any:
            return await hosting.call_tool(module, run, ToolCall(fence, call_id, arguments, 10.0))

        with pytest.raises(Forbidden, match="nobody agreed"):
            await begin("1", "files.pay", amount=1)
        with pytest.raises(Forbidden, match="is not for the runs of admin"):
            await begin("1", "shop.search")
        with pytest.raises(Conflict, match="no call '1' under way"):
            await make("1", a=1, b=1)
        await begin("1", "files.add", a=1, b=2)
        with pytest.raises(Conflict, match="has other arguments"):
            await make("1", a=1, b=99)
        with pytest.raises(Conflict):
            await make("1", fence=fence - 1, a=1, b=2)
        assert await make("1", a=1, b=2) == {"result": 3}
        with pytest.raises(Conflict, match="was made already"):
            await make("1", a=1, b=2)
        async with house.client(await token_of(house, "other")) as other:
            with pytest.raises(Forbidden, match="may not act for"):
                await hosting.tools(other, run, ToolsRequest(fence))
        await control.kill(admin, run)
        with pytest.raises(Conflict):
            await hosting.tools(module, run, ToolsRequest(fence))
        await agents.delete(admin, "rogue")


@pytest.mark.anyio
async def test_what_is_denied_to_a_caller_no_module_has_called(house: House) -> None:
    spec = AgentSpec(name="rogue2", model="talker", tools=[ToolUse(mcp="files", only=["add"])])
    async with house.client() as admin, house.client(await token_of(house, "rogue")) as module:
        eve = (await admin.post("/api/v1/tokens", TokenRequest("operator", "eve"), NewToken)).token
        async with house.client(eve) as operator:
            claim = await claimed(house, module, spec, by=operator)
        called = Append(claim.fence, claim.events[-1].seq, [ToolCalled("1", "files.add", {"a": 1, "b": 2})])
        with pytest.raises(Forbidden, match=r"files\.add"):
            await hosting.append(module, claim.run, called)
        await agents.delete(admin, "rogue2")

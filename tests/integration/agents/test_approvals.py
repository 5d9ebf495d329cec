"""Tool calls that wait for a person: through `kill -9`, with two people at once, a deadline, and a webhook."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from integration.agents.conftest import ModuleProcess, until
from llmagentos.api import approvals, runs
from llmagentos.api.approvals import Answer, Answered, Approval
from llmagentos.api.client import ApiClient
from llmagentos.api.control import NewProgram, Program
from llmagentos.api.runs import RunState
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core.errors import Conflict, Forbidden
from support.server import ServerProcess, StartServer
from support.talker import Talker

SEARCH = '{"tool": "shop.search", "arguments": {"query": "kettle"}}'
READY = '{"tool": "answer"}'
AGENTS = """
kind: Agent
name: {name}
model: talker
verify: false
tools: [{{service: shop.search, approval: required, approval_timeout: {timeout}}}]
"""


class Hook:
    """A webhook that is broken the first time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self._first = threading.Semaphore()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key, secret = str(self.headers["Idempotency-Key"]), str(self.headers["Authorization"])
                hook.told.append((key, secret, body))
                self.send_response(500 if hook._first.acquire(blocking=False) else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what went wrong."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?a=1"

    def __enter__(self) -> Hook:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as hook:
        yield hook


@pytest.fixture
def house(start_server: StartServer, talker: Talker, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> ServerProcess:
    """Only one run may be under way at a time: one that waits for a person is not."""
    monkeypatch.setenv("HOOK_TOKEN", "s3cret")
    talker.say = _say
    return start_server(
        talker.config
        + "budgets: {limits: {org: {runs: 1}}, prices: {talker: [{since: '2020-01-01', input: 1000, output: 1000}]}}\n"
        + f"approvals: {{webhook: {{url: '{hook.url}', token: {{env: HOOK_TOKEN}}}}}}\n"
        + "tools: {deny: {'operator:eve': [shop.*]}}\n"
    )


def _say(request: dict[str, Any]) -> str:
    """One search; then whatever came of it."""
    results = [message["content"] for message in request["messages"] if "Result of" in message["content"]]
    if "response_format" in request:
        return READY if results or "shop.search" not in json.dumps(request) else SEARCH
    return results[-1] if results else "I have no tool."


async def waiting(client: ApiClient, count: int) -> list[Approval]:
    """The calls that wait, once there are `count` of them."""
    async with asyncio.timeout(60):
        while len(found := await approvals.listing(client)) != count:
            await asyncio.sleep(0.02)
    return found


async def ended(client: ApiClient, run: str) -> runs.Run:
    async with asyncio.timeout(60):
        while not (found := await runs.get(client, run)).state.ended:
            await asyncio.sleep(0.02)
    return found


async def kinds(client: ApiClient, run: str) -> list[str]:
    return [event.type for event in await runs.events(client, run)]


@asynccontextmanager
async def someone(house: ServerProcess, kind: str, name: str) -> AsyncIterator[ApiClient]:
    async with house.client() as admin:
        token = await admin.post("/api/v1/tokens", TokenRequest(kind, name), NewToken)
    async with house.client(token.token) as client:
        yield client


def test_a_tool_call_waits_for_a_person(house: ServerProcess, shop: ModuleProcess, hook: Hook) -> None:
    for name, timeout in (("buyer", 3600), ("hasty", 0.2)):
        (house.directory / f"{name}.yaml").write_text(AGENTS.format(name=name, timeout=timeout))
        assert house.llmctl("apply", "-f", f"{name}.yaml").returncode == 0

    async def main() -> None:
        async with house.client() as client:
            first = (await runs.start(client, "buyer", "What about kettles?")).id
            await waiting(client, 1)
            second = (await runs.start(client, "buyer", "And others?")).id  # one that waits is not under way
            asked = await waiting(client, 2)
            assert [each.run for each in asked] == [first, second]
            await _told(client, first)
            house.kill()
            await asyncio.to_thread(house.start)
            assert [each.id for each in await waiting(client, 2)] == [each.id for each in asked]
            assert (await runs.get(client, first)).state is RunState.WAITING
            assert shop.notes == []
            await _not_by_machines(client, house, asked[0])
            await _only_one_wins(client, house, asked[0])
            found = await ended(client, first)
            assert "Blue Kettle" in str(found.answer)
            assert shop.notes == ["search kettle"]
            assert found.money == (found.tokens_in + found.tokens_out) * 1_000_000
            out = await asyncio.to_thread(house.llmctl, "deny", second, "--reason", "too dear")
            assert out.returncode == 0, out.stderr
            assert "denied by admin:admin: too dear" in str((await ended(client, second)).answer)
            late = (await runs.start(client, "hasty", "Quick!")).id
            assert "denied by nobody: no answer within 0.2 s" in str((await ended(client, late)).answer)
            assert shop.notes == ["search kettle"]
            assert await kinds(client, first) == [
                "created", "claimed", "model_called", "model_replied", "approval_requested", "approval_notified",
                "approved", "claimed", "tool_called", "tool_answered",
                "model_called", "model_replied", "model_called", "model_replied", "answered",
            ]  # fmt: skip
        await _denied_callers(house)

    asyncio.run(main())
    until(lambda: [key for key, _, _ in hook.told].count(hook.told[0][0]) >= 2)  # it was broken the first time
    assert {secret for _, secret, _ in hook.told} == {"Bearer s3cret"}
    assert hook.told[0][2]["approval"]["tool"] == "shop.search"
    assert hook.told[0][2]["console"] == f"{house.url}/approvals"


async def _told(client: ApiClient, run: str) -> None:
    async with asyncio.timeout(60):
        while "approval_notified" not in await kinds(client, run):
            await asyncio.sleep(0.02)


async def _not_by_machines(client: ApiClient, house: ServerProcess, asked: Approval) -> None:
    """Neither the run's own program nor a module says yes; who may only look, looks."""
    started = NewProgram("script", ["python", "x.py"], "here")
    program = await client.post("/api/v1/programs", started, Program)
    async with house.client(program.token) as itself:
        with pytest.raises(Forbidden):
            await approvals.approve(itself, asked.id)
    await client.post(f"/api/v1/runs/{program.run}/kill", None, runs.Run)
    async with someone(house, "module", "shop") as module:
        with pytest.raises(Forbidden):
            await approvals.approve(module, asked.id)
    async with someone(house, "viewer", "vera") as viewer:
        assert len(await approvals.listing(viewer)) == 2
        with pytest.raises(Forbidden):
            await approvals.deny(viewer, asked.id)


async def _only_one_wins(client: ApiClient, house: ServerProcess, asked: Approval) -> None:
    async with someone(house, "operator", "ada") as ada:
        path = f"/api/v1/approvals/{asked.id}"
        tried = await asyncio.gather(
            client.post(f"{path}/approve", Answer(), Answered),
            ada.post(f"{path}/approve", Answer("fine"), Answered),
            return_exceptions=True,
        )
    won = [each for each in tried if isinstance(each, Answered)]
    lost = [each for each in tried if isinstance(each, Conflict)]
    assert (len(won), len(lost)) == (1, 1)
    assert f"was already approved by {won[0].by}" in lost[0].message


async def _denied_callers(house: ServerProcess) -> None:
    """What the operator denies to somebody, no agent does for them."""
    async with someone(house, "operator", "eve") as eve:
        run = (await runs.start(eve, "buyer", "What about kettles?")).id
        assert (await ended(eve, run)).answer == "I have no tool."

"""Agents through `llmctl` and the API, on a real server and a real module, with a scripted engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from integration.agents.conftest import GROUNDED, ModuleProcess, until
from llmagentos.api import control, hosting, runs
from llmagentos.api.agents import AgentSpec
from llmagentos.api.hosting import Append, ClaimRequest, HostedAgent
from llmagentos.api.runs import ModelCalled, Purpose, RunState
from llmagentos.core.errors import Conflict, Forbidden
from support.server import END_S, ServerProcess
from support.talker import Talker


def newest(house: ServerProcess) -> dict[str, object]:
    return json.loads(house.llmctl("ps", "-a", "--json").stdout)[0]


def test_an_answer_with_its_sources(house: ServerProcess, shop: ModuleProcess, support: str) -> None:
    done = house.llmctl("ask", support, "What does the kettle cost?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "The kettle costs 39.90 EUR.",
        "",
        "Sources:",
        "  [1] name: Blue Kettle; price: 39.90 EUR",
    ]
    assert shop.notes == ["search What does the kettle cost?"]


def test_what_it_cannot_know_it_says(house: ServerProcess, support: str, talker: Talker) -> None:
    done = house.llmctl("ask", support, "Do you sell a bicycle?")
    assert (done.returncode, done.stdout) == (0, "I do not know: I found nothing about that.\n")
    assert talker.requests == []


def test_the_log_and_the_tree_of_a_run(house: ServerProcess, support: str) -> None:
    house.llmctl("ask", support, "What does the kettle cost?")
    run = str(newest(house)["id"])
    lines = house.llmctl("logs", run[:5]).stdout.splitlines()
    kinds = [line.split()[2] for line in lines]
    assert kinds == [
        "created",
        "claimed",
        "tool_called",
        "tool_answered",
        "model_called",
        "model_replied",
        "answered",
    ]
    assert house.llmctl("logs", "-f", run).stdout.splitlines() == lines
    tree = house.llmctl("trace", run).stdout
    assert "├─ shop.search(" in tree
    assert "write the answer: talker" in tree
    assert "11 in, 5 out" in tree
    assert house.llmctl("wait", run).stdout == "The kettle costs 39.90 EUR.\n"
    listed = house.llmctl("ps", "-a").stdout
    assert run in listed
    assert "succeeded" in listed


def test_a_killed_run_stops_the_engine(house: ServerProcess, friend: str, talker: Talker, tmp_path: Path) -> None:
    talker.endless = True
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        asking = subprocess.Popen(
            [sys.executable, "-m", "llmagentos.cli.main", "ask", friend, "kettle?"],
            cwd=house.directory,
            env=house.env,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    until(lambda: "more" in shown.read_text())
    listed = house.llmctl("ps", "--json")
    (run,) = json.loads(listed.stdout)
    assert run["state"] == "running"
    assert house.llmctl("kill", run["id"][:6]).returncode == 0
    until(lambda: talker.cut_off == 1)
    _, error = asking.communicate(timeout=END_S)
    assert asking.returncode == 1
    assert shown.read_text().startswith("The kettle costs 39.90 EUR. more")
    assert "was stopped by admin:admin" in error
    assert house.llmctl("ps", "--json").stdout.strip() == "[]"
    again = house.llmctl("kill", run["id"])
    assert (again.returncode, "already been killed" in again.stderr) == (2, True)


def test_ctrl_c_kills_what_was_asked(house: ServerProcess, support: str, talker: Talker) -> None:
    talker.endless = True
    asking = subprocess.Popen(
        [sys.executable, "-m", "llmagentos.cli.main", "ask", support, "kettle?"],
        cwd=house.directory,
        env=house.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until(lambda: talker.requests)
    asking.send_signal(signal.SIGINT)
    asking.communicate(timeout=END_S)
    assert asking.returncode == 130
    until(lambda: talker.cut_off == 1)
    assert newest(house)["state"] == "killed"


def test_a_conversation_remembers(house: ServerProcess, friend: str, talker: Talker) -> None:
    talker.say = lambda request: f"heard {len(request['messages'])}"
    done = house.llmctl("chat", friend, stdin="one\ntwo\n\n")
    assert done.stdout.splitlines() == ["heard 1", "heard 3"]
    assert [m["content"] for m in talker.requests[1]["messages"]] == ["one", "heard 1", "two"]


def test_an_agent_in_python_runs_in_its_module(house: ServerProcess, shop: ModuleProcess, talker: Talker) -> None:
    replies = ['{"tool": "double", "arguments": {"number": 21}}', '{"tool": "answer"}', "It is 42."]
    talker.say = lambda _: replies[len(talker.requests) - 1]
    done = house.llmctl("ask", "sums", "Twice 21?")
    assert done.stdout.splitlines()[0] == "It is 42.", done.stderr
    assert shop.notes == ["double 21"]
    assert talker.requests[0]["response_format"]["type"] == "json_schema"
    listed = json.loads(house.llmctl("agents", "--json").stdout)
    assert [(a["name"], a["host"], a["online"], a["functions"]) for a in listed] == [
        ("sums", "module:shop", True, ["double", "wait"])
    ]
    assert "sums" in house.llmctl("agent", "sums").stdout


def test_a_model_that_fails_is_said(house: ServerProcess, support: str, talker: Talker) -> None:
    talker.say = lambda _: ""
    done = house.llmctl("ask", support, "kettle?")
    assert done.returncode == 1
    assert "answered nothing" in done.stderr
    assert "llmctl trace" in done.stderr


def test_a_faulty_definition_is_refused(house: ServerProcess) -> None:
    (house.directory / "good.yaml").write_text("{kind: Agent, name: good}")
    (house.directory / "bad.yaml").write_text("kind: Agent\nname: bad\nmodle: talker\n")
    done = house.llmctl("apply", "-f", "good.yaml", "-f", "bad.yaml")
    assert done.returncode == 2
    assert "bad.yaml:3: unknown key 'modle'; did you mean 'model'?" in done.stderr
    assert "good" not in house.llmctl("agents").stdout
    (house.directory / "bad.yaml").write_text("kind: Agent\nname: bad\nmodel: takler\n")
    done = house.llmctl("apply", "-f", "bad.yaml")
    assert (done.returncode, "there is no chat model 'takler'" in done.stderr) == (2, True)
    assert "did you mean 'talker'?" in done.stderr


def test_definitions_have_versions_and_end(house: ServerProcess, tmp_path: Path) -> None:
    file = house.directory / "support.yaml"
    file.write_text(GROUNDED)
    first = house.llmctl("apply", "-f", "support.yaml")
    assert "agent support: created (version 1)" in first.stdout
    assert "warning: shop.search" in first.stderr
    assert "unchanged (version 1)" in house.llmctl("apply", "-f", "support.yaml").stdout
    file.write_text(GROUNDED.replace("You help.", "You help a lot."))
    assert "changed (version 2)" in house.llmctl("apply", "-f", "support.yaml").stdout
    assert house.llmctl("delete", "agent", "support").returncode == 0
    gone = house.llmctl("ask", "suport", "hi")
    assert (gone.returncode, "there is no agent 'suport'" in gone.stderr) == (2, True)


@pytest.mark.anyio
async def test_a_module_acts_only_for_its_own_agents(house: ServerProcess, shop: ModuleProcess) -> None:
    async with house.client() as admin:
        token = (await admin.post("/api/v1/tokens", {"kind": "module", "name": "thief"}, dict))["token"]
        found = await admin.get("/api/v1/agents/sums", dict)
        await runs.start(admin, "sums", "hello")
    async with house.client(token) as thief:
        agents = [HostedAgent(AgentSpec(name="sums"))]
        with pytest.raises(Forbidden):
            await hosting.claim(thief, ClaimRequest("shop", agents, "x", 0))
        with pytest.raises(Conflict, match="hosted by module:shop"):
            await hosting.claim(thief, ClaimRequest("thief", agents, "x", 0))
        async with house.client() as admin:
            run = (await runs.listing(admin, ended=True))[0].id
        with pytest.raises(Forbidden):
            await hosting.append(thief, run, Append(1, 2, [ModelCalled(Purpose.ANSWER, "m")]))
        with pytest.raises(Forbidden):
            await control.kill(thief, run)
    assert found["host"] == "module:shop"


@pytest.mark.anyio
async def test_words_that_are_to_be_checked_are_not_shown_before(
    house: ServerProcess, support: str, talker: Talker
) -> None:
    talker.say = lambda _: "It costs 12.50 EUR."
    async with house.client() as client:
        started = await runs.start(client, support, "What does the kettle cost?")
        items = [item async for item in runs.follow(client, started.id)]
        assert not any(isinstance(item, runs.RunDelta) for item in items)
        assert "39.90 EUR" in str((await runs.get(client, started.id)).answer)


@pytest.mark.anyio
async def test_a_run_is_followed_as_it_happens(house: ServerProcess, friend: str, talker: Talker) -> None:
    followed = threading.Event()
    talker.say = lambda _: "The kettle costs 39.90 EUR." if followed.wait(60) else ""
    items = []
    async with house.client() as client:
        started = await runs.start(client, friend, "What does the kettle cost?")
        async for item in runs.follow(client, started.id):
            followed.set()
            items.append(item)
        text = "".join(item.text for item in items if isinstance(item, runs.RunDelta))
        events = [item for item in items if isinstance(item, runs.RunEvent)]
        assert text == "The kettle costs 39.90 EUR."
        assert [event.seq for event in events] == [1, 2, 3, 4, 5]
        assert (await runs.get(client, started.id)).state is RunState.SUCCEEDED
        assert [item.seq async for item in runs.follow(client, started.id, after=3) if hasattr(item, "seq")] == [4, 5]

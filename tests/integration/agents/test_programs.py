"""Programs of other frameworks as runs: `llmctl exec`, with OpenAI's own client and a scripted engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.agents.conftest import until
from llmagentos.api import control, runs
from llmagentos.core.errors import Forbidden, LLMAgentOSError, Unauthenticated
from support.server import END_S, ServerProcess, llmctl_beside
from support.talker import Talker

SCRIPT = """
import os, sys, subprocess
from pathlib import Path
import openai

client = openai.OpenAI(max_retries=0)
if sys.argv[1:] == ["family"]:
    Path("child").write_text(str(subprocess.Popen(["sleep", "300"]).pid))
for text in ["one", "two"]:
    found = client.chat.completions.create(model="default", messages=[{"role": "user", "content": text}])
    print(found.choices[0].message.content, flush=True)
Path("token").write_text(os.environ["OPENAI_API_KEY"])
print(os.environ["LLMAGENTOS_RUN"], os.environ.get("LLMAGENTOS_TOKEN"))
sys.exit(int(os.environ.get("CODE", "0")))
"""


def ps(house: ServerProcess, *options: str) -> list[dict[str, Any]]:
    return json.loads(house.llmctl("ps", "-a", "--json", *options).stdout)


@pytest.fixture
def script(house: ServerProcess) -> list[str]:
    (house.directory / "script.py").write_text(SCRIPT)
    return ["exec", "--agent", "researcher", "--priority", "batch", "--", sys.executable, "script.py"]


def started(house: ServerProcess, command: list[str]) -> subprocess.Popen[str]:
    return llmctl_beside(house.directory, house.env, *command)


def test_a_script_is_a_run(house: ServerProcess, script: list[str], talker: Talker) -> None:
    done = house.llmctl(*script)
    assert done.returncode == 0, done.stderr
    (run,) = ps(house)
    assert done.stdout.splitlines() == ["The kettle costs 39.90 EUR."] * 2 + [f"{run['id']} None"]
    assert (run["agent"], run["state"], run["priority"], run["model_calls"]) == ("researcher", "succeeded", 15, 2)
    assert (run["tokens_in"], run["tokens_out"]) == (22, 10)
    assert run["input"].endswith("script.py")
    tree = house.llmctl("trace", run["id"]).stdout
    assert tree.count("model call: talker") == 2
    assert "exit code 0" in tree
    assert house.llmctl("wait", run["id"]).stdout == "exit code 0\n"


def test_its_exit_code_is_the_scripts(house: ServerProcess, script: list[str]) -> None:
    house.env["CODE"] = "3"
    assert house.llmctl(*script).returncode == 3
    (run,) = ps(house)
    assert run["state"] == "failed"
    assert "exit code 3" in house.llmctl("wait", run["id"]).stderr
    missing = house.llmctl("exec", "--agent", "researcher", "--", "no-such-program")
    assert (missing.returncode, "no-such-program: No such file" in missing.stderr) == (127, True)
    assert {run["state"] for run in ps(house)} == {"failed"}


def test_kill_ends_the_program_its_family_and_its_call(house: ServerProcess, script: list[str], talker: Talker) -> None:
    talker.endless = True
    process = started(house, [*script, "family"])
    until(lambda: talker.requests)
    assert house.llmctl("kill", ps(house)[0]["id"]).returncode == 0
    until(lambda: talker.cut_off == 1)
    _, error = process.communicate(timeout=END_S)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "stopped" in error
    child = int((house.directory / "child").read_text())
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert ps(house)[0]["state"] == "killed"


def test_a_paused_program_waits_at_the_gate(house: ServerProcess, script: list[str], talker: Talker) -> None:
    talker.endless = True
    process = started(house, script)
    until(lambda: talker.requests)
    run = ps(house)[0]["id"]
    assert house.llmctl("pause", run).returncode == 0
    until(lambda: talker.cut_off == 1)
    talker.endless = False
    until(lambda: (ps(house)[0]["wait"] or {}).get("reason") == "held")
    assert len(talker.requests) == 1
    assert ps(house)[0]["state"] == "paused"
    assert house.llmctl("resume", run).returncode == 0
    _, error = process.communicate(timeout=END_S)
    assert process.returncode == 0, error
    assert [request["messages"][0]["content"] for request in talker.requests] == ["one", "one", "two"]


def test_a_host_that_is_gone_ends_the_run(house: ServerProcess, script: list[str], talker: Talker) -> None:
    """`kill -9` of llmctl: the kernel ends the program, and nobody can say how it ended."""
    talker.endless = True
    process = started(house, script)
    until(lambda: talker.requests)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=END_S)
    until(lambda: talker.cut_off == 1)
    until(lambda: ps(house)[0]["state"] == "failed")
    assert "host was lost" in house.llmctl("wait", ps(house)[0]["id"]).stderr


def test_it_goes_on_through_kill_9_of_the_server(house: ServerProcess, script: list[str], talker: Talker) -> None:
    """The script retries, as OpenAI's client does; its run is still its own."""
    text = SCRIPT.replace("max_retries=0", "max_retries=8")
    Path(house.directory / "script.py").write_text(text)
    talker.endless = True
    process = started(house, script)
    until(lambda: talker.requests)
    house.kill()
    talker.endless = False
    house.start()
    _, error = process.communicate(timeout=90)
    assert process.returncode == 0, error
    (run,) = ps(house)
    assert (run["state"], run["model_calls"]) == ("succeeded", 2)


@pytest.mark.anyio
async def test_its_key_is_good_for_its_calls_alone(house: ServerProcess, friend: str, talker: Talker) -> None:
    ask = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
    async with house.client() as admin:
        other = (await runs.start(admin, friend, "hello")).id
        program = await control.begin(admin, control.NewProgram("x", ["true"], "h/1"))
        async with house.client(program.token) as inside:
            await inside.post("/v1/chat/completions", ask, dict)
            await inside.get("/v1/models", dict)
            for forbidden in ("/api/v1/runs", "/api/v1/models", "/api/v1/models/calls", "/api/v1/agents", "/metrics"):
                with pytest.raises(Forbidden):
                    await inside.get(forbidden, dict)
            with pytest.raises(Forbidden):
                await control.kill(inside, program.run)
            with pytest.raises(Forbidden):
                await inside.post("/v1/chat/completions", ask, dict, headers={"X-LLMAgentOS-Run": other})
            with pytest.raises(Forbidden):
                await inside.post("/api/v1/tokens", {"kind": "run", "name": other}, dict)
            with pytest.raises(LLMAgentOSError, match="cannot make a token of kind 'run'"):
                await admin.post("/api/v1/tokens", {"kind": "run", "name": other}, dict)
            made = await admin.post("/api/v1/tokens", {"kind": "module", "name": "shop"}, dict)
            async with house.client(made["token"]) as module:  # the services that it calls learn its run's id
                with pytest.raises(Forbidden):
                    await control.end(module, program.run, control.Exit(program.fence, 0))
            await control.end(admin, program.run, control.Exit(program.fence, 0))
            with pytest.raises((Unauthenticated, LLMAgentOSError)):
                await inside.post("/v1/chat/completions", ask, dict)


def test_its_prompts_are_redacted_and_its_answers_are_not(start_server: Any, talker: Talker) -> None:
    talker.say = lambda request: f"to {request['messages'][-1]['content']} it is"
    house: ServerProcess = start_server(f"{talker.config}guardrails: {{redact: [email]}}\n")
    (house.directory / "script.py").write_text(SCRIPT.replace('"two"', '"ada@example.com"'))
    done = house.llmctl("exec", "--agent", "researcher", "--", sys.executable, "script.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["to one it is", "to ada@example.com it is"]
    assert [request["messages"][-1]["content"] for request in talker.requests] == ["one", "<EMAIL_1>"]

"""Memory, output and files by hand of `llmctl`, with the real local model and the real embedding engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmagentos.api import memory
from support.engines import CONFIG, Engines
from support.server import ServerProcess, StartServer
from support.talker import Talker

AGENTS = """
kind: Agent
name: {name}
{more}
"""
PERSON = """
instructions: Extract the person.
output:
  type: object
  properties: {name: {type: string, maxLength: 40}, city: {type: string, maxLength: 40}}
  required: [name, city]
  additionalProperties: false
"""


@pytest.fixture
def real(start_server: StartServer) -> Iterator[ServerProcess]:
    server = start_server(CONFIG.replace("context: 512", "context: 256"))
    engines = Engines(server)
    engines.start()
    try:
        engines.wait()
        yield server
    finally:
        engines.stop()


def apply(server: ServerProcess, name: str, more: str) -> None:
    file = server.directory / f"{name}.yaml"
    file.write_text(AGENTS.format(name=name, more=more))
    done = server.llmctl("apply", "-f", str(file))
    assert done.returncode == 0, done.stderr


FACTS = (
    "Ada's cat is called Whiskers.",
    "用户住在上海，喜欢喝绿茶。",
    "The user's deadline for the tax report is March 3.",
    "The production database runs on host db-7.",
    "用户的生日是五月十二日。",
)
WANTED = (
    ("绿茶", "绿茶"),
    ("生日是什么时候", "五月十二日"),
    ("他住哪个城市？", "上海"),
    ("What is the name of the pet?", "Whiskers"),
    ("When is the tax report due?", "March 3"),
    ("which server has the database", "db-7"),
)


async def remember_and_search(server: ServerProcess) -> None:
    async with server.client(timeout=60) as client:
        for fact in FACTS:
            await memory.add(client, "friend", fact)
        for query, wanted in WANTED:
            assert wanted in (await memory.search(client, "friend", query))[0].text, query
        assert await memory.search(client, "friend", "What is the capital of France?") == []


def test_memory_output_and_a_long_session_with_real_models(real: ServerProcess) -> None:
    apply(real, "friend", "memory: {long_term: true, recall: auto, remember: false}\nlimits: {reply: 8}")
    asyncio.run(remember_and_search(real))
    assert "绿茶" in real.llmctl("memory", "search", "friend", "绿茶").stdout
    asked = real.llmctl("ask", "friend", "What is my cat called?", "--session", "s", "--json")
    assert "Whiskers" in real.llmctl("logs", json.loads(asked.stdout)["id"], "--json").stdout
    for n in range(2):  # 256 tokens of context: the older turns have to give way
        asked = real.llmctl("ask", "friend", f"Tell me about number {n}. " + "word " * 50, "--session", "s", "--json")
        assert asked.returncode == 0, asked.stderr
    real.llmctl("ask", "friend", "Thanks", "--session", "s")
    shown = json.loads(real.llmctl("sessions", "show", "friend", "s", "--json").stdout)
    assert shown["summary"]
    assert shown["turns"][-1]["input"] == "Thanks"
    assert json.loads(real.llmctl("sessions", "--json").stdout)[0]["runs"] == 4
    assert real.llmctl("sessions", "delete", "friend", "s").returncode == 0
    assert real.llmctl("sessions", "--json").stdout.strip() == "[]"

    apply(real, "person", PERSON)
    run = json.loads(real.llmctl("ask", "person", "Tom Jones lives in Paris.", "--json").stdout)
    assert set(run["output"]) == {"name", "city"}
    assert json.loads(run["answer"]) == run["output"]


def test_files_and_guardrails_over_the_api(house: ServerProcess, talker: Talker, tmp_path: Path) -> None:
    talker.say = lambda _: "Noted, <EMAIL_1>."
    apply(house, "reader", "guardrails: {redact: [email], where: [prompts, logs]}")
    assert house.llmctl("ask", "reader", "I am bob@example.com").stdout.strip() == "Noted, bob@example.com."
    note, picture, binary = tmp_path / "笔记.txt", tmp_path / "cat.png", tmp_path / "a.bin"
    note.write_text("写信给ada@example.com")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    binary.write_bytes(b"\0\1\2")
    done = house.llmctl("ask", "reader", "Who?", "-f", str(note), "--json")
    run = json.loads(done.stdout)
    assert run["answer"] == "Noted, ada@example.com."
    sent = talker.requests[-1]["messages"][-1]["content"]
    assert "写信给<EMAIL_1>" in sent
    assert "[data " in sent
    events = house.llmctl("logs", run["id"], "--json").stdout
    assert "ada@example.com" not in events
    assert "ada@example.com" not in house.log()
    for file, said in ((picture, "reads none"), (binary, "neither text")):
        done = house.llmctl("ask", "reader", "What is this?", "-f", str(file))
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_memory_is_each_users_own(house: ServerProcess) -> None:
    apply(house, "friend", "memory: {long_term: true}")
    assert house.llmctl("memory", "add", "friend", "my secret is 42").returncode == 0
    made = house.llmctl("token", "create", "bob", "--kind", "operator")
    token = next(word for word in made.stdout.split() if word.startswith("lao_"))
    env, house.env = house.env, house.env | {"LLMAGENTOS_TOKEN": token, "LLMAGENTOS_SERVER": house.url}
    try:
        assert house.llmctl("memory", "list", "--json").stdout.strip() == "[]"
        assert house.llmctl("memory", "search", "friend", "secret", "--json").stdout.strip() == "[]"
        refused = house.llmctl("memory", "list", "--user", "admin:admin")
        assert (refused.returncode, "their own" in refused.stderr) == (2, True)
        assert house.llmctl("sessions", "--all").returncode == 2
    finally:
        house.env = env
    (fact,) = json.loads(house.llmctl("memory", "list", "--json").stdout)
    assert house.llmctl("memory", "forget", fact["id"]).returncode == 0
    assert house.llmctl("memory", "forget", fact["id"]).returncode == 2

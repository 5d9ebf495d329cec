"""Waiting for the end of processes that are not our children, told apart from later ones of the same number."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmagentos.fleet.node import processes

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="the kernel's tables are Linux's")]
LONG_S = 600.0
"""Whoever waits as long fails by the time limit of all tests."""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as started:
        yield started
        started.kill()


def start(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def test_its_end_is_noticed_when_it_comes(process: subprocess.Popen[bytes]) -> None:
    waiting = asyncio.create_task(processes.ended(process.pid, start(process.pid), within=LONG_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    process.kill()
    await waiting
    assert not processes.alive(process.pid, 0)


async def test_one_that_lives_on_is_waited_for_so_long(process: subprocess.Popen[bytes]) -> None:
    began = start(process.pid)
    await processes.ended(process.pid, began, within=0.05)
    assert processes.alive(process.pid, began)


async def test_one_that_is_gone_is_not_waited_for(process: subprocess.Popen[bytes]) -> None:
    began = start(process.pid)
    process.kill()
    process.wait()
    await processes.ended(process.pid, began, within=LONG_S)


async def test_another_one_of_its_number_is_not_it(process: subprocess.Popen[bytes]) -> None:
    await processes.ended(process.pid, start(process.pid) - 1, within=LONG_S)


async def test_where_the_kernel_cannot_tell_it_is_asked_at_the_end(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("os.pidfd_open", unknown)
    began = start(process.pid)
    await processes.ended(process.pid, began, within=0.05)
    process.kill()
    process.wait()
    await processes.ended(process.pid, began, within=LONG_S)

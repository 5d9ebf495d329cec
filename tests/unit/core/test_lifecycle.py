from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.lifecycle import Backoff, reap

PARENT = """
import os, subprocess, sys
from llmagentos.core.lifecycle import die_with
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=die_with(os.getpid()))
print(child.pid, flush=True)
child.wait()
"""


def test_delays_grow_to_a_bound_and_start_over_after_a_healthy_life() -> None:
    backoff = Backoff(first=1, factor=2, most=8, healthy=10, jitter=0)
    assert [backoff.died(0) for _ in range(5)] == [1, 2, 4, 8, 8]
    assert backoff.died(10) == 1
    assert backoff.died(9.9) == 2


@given(st.lists(st.floats(0, 100), max_size=200), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_part(uptimes: list[float], chance: float) -> None:
    backoff = Backoff(chance=lambda: chance)
    for uptime in uptimes:
        assert 0.5 * 0.8 <= backoff.died(uptime) <= 30 * 1.2


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_does_not_outlive_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _runs(child):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
    except ProcessLookupError:
        return False


def test_nothing_is_armed_where_the_kernel_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmagentos.core import lifecycle

    monkeypatch.setattr(lifecycle.sys, "platform", "darwin")
    lifecycle.die_with(os.getpid())()


@pytest.mark.anyio
async def test_a_process_whose_output_nobody_reads_is_reaped() -> None:
    """asyncio stops reading it when 200 bytes wait, and so would never see its end."""
    process = await asyncio.create_subprocess_exec("yes", stdout=asyncio.subprocess.PIPE, limit=100)
    assert process.stdout is not None
    await process.stdout.read(1)
    process.kill()
    async with asyncio.timeout(20):
        await reap(process)
    assert process.returncode == -signal.SIGKILL

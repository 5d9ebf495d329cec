"""Two hosts never both advance one run: a module that sleeps through its lease finds out that it was replaced."""

from __future__ import annotations

import signal

import pytest

from faults.test_runs import READY, asking, by_progress, events_of
from integration.agents.conftest import ModuleProcess, house, shop, talker, until  # noqa: F401
from support.server import ServerProcess
from support.talker import Talker


@pytest.mark.timeout(300)
def test_a_host_that_slept_cannot_write(house: ServerProcess, shop: ModuleProcess, talker: Talker) -> None:  # noqa: F811
    """SIGSTOP beyond the lease, another instance takes over and ends the run, SIGCONT: what it then says is refused."""
    wait = '{"tool": "wait", "arguments": {"seconds": 1}}'
    talker.say = by_progress({0: wait, 1: READY})  # type: ignore[assignment]
    process = asking(house, "sums")
    until(lambda: "wait begins" in shop.notes, within=60)
    sleeper = shop.processes[0]
    sleeper.send_signal(signal.SIGSTOP)
    shop.start()
    until(lambda: shop.notes.count("wait begins") == 2, shop.log, within=80)  # the lease ran out
    sleeper.send_signal(signal.SIGCONT)  # it has its tool's result in a moment, and wants to write it
    shop.go()
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert out.startswith("The kettle")
    until(lambda: "run let go" in shop.log() or "run lost" in shop.log(), shop.log, within=60)
    events = [event["data"] for event in events_of(house)]
    kinds = [event["type"] for event in events]
    claims = [event for event in events if event["type"] == "claimed"]
    fences = [claim["fence"] for claim in claims]
    # The sleeper's own question for runs may still be open, and get the run before the other instance does.
    assert len(claims) in (2, 3)
    assert fences == sorted(set(fences))
    assert claims[-1]["holder"] != claims[0]["holder"]
    assert kinds.count("tool_called") == kinds.count("tool_answered") == 1
    assert kinds[kinds.index("tool_answered") :] == [
        "tool_answered", "model_called", "model_replied", "model_called", "model_replied", "answered"
    ]  # fmt: skip
    assert sleeper.poll() is None  # it goes on with other runs

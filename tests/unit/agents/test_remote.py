"""A module's runs while the server is away."""

from __future__ import annotations

from typing import Any

import pytest

from llmagentos.agents import remote
from llmagentos.agents.remote import ApiModels
from llmagentos.api.http import ConnectFailed, ConnectionLost
from llmagentos.api.llm import Embedding, Embeddings, Usage
from llmagentos.core.errors import DeadlineExceeded
from llmagentos.core.lifecycle import Backoff

pytestmark = pytest.mark.anyio


class Away:
    """The transport seam: a server that is away for so many requests."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked = 0

    async def post(self, *_: Any, **__: Any) -> Embeddings:
        self.asked += 1
        if self.asked <= self.times:
            raise ConnectFailed("nobody listens") if self.asked % 2 else ConnectionLost("it was killed")
        return Embeddings([Embedding(0, [1.0])], "m", Usage())


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "Backoff", lambda **_: Backoff(first=0.001, most=0.01))


async def test_a_call_of_a_model_waits_for_the_server() -> None:
    """However long it is away within the call's time: a run of hours is not lost by an upgrade."""
    server: Any = Away(12)
    assert await ApiModels(lambda: server).embed(["x"], kind="query", run="r1", timeout=600.0) == [[1.0]]
    assert server.asked == 13


async def test_not_longer_than_the_calls_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_GRACE_S", 0.0)
    server: Any = Away(10**9)
    with pytest.raises(DeadlineExceeded, match=r"not there within 0\.2 s"):
        await ApiModels(lambda: server).embed(["x"], kind="query", run="r1", timeout=0.2)

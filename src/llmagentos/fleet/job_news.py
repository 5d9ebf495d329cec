"""What is told of a job to those who follow it: at once, but of a job on many nodes only so often."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from llmagentos.api.jobs import JobState
from llmagentos.core.errors import Unauthenticated
from llmagentos.core.events import Hub

SMALL = 20
"""Every change of a job on at most so many nodes is told."""
PACE_S = 0.2
WOKEN, SLICE_S = 25, 0.005
"""So many nodes are woken at once, and the next ones so much later: what others ask meanwhile is answered."""


GONE: Final = "gone"
"""On `queue:NODE`: the node's identity was ended. Who waits in its name is told nothing more."""


def require_there(node: str, heard: object) -> None:
    """Raises `Unauthenticated` when what was `heard` on `queue:NODE` is that the node is gone."""
    if heard is GONE:
        raise Unauthenticated(
            f"the identity of node {node!r} was ended", hint="`llmctl node join` again with a new join token"
        )


@dataclass(frozen=True, slots=True)
class JobNews:
    """Something of the job is different: who wants to know what reads it."""

    job: int
    state: JobState
    ended: bool = False


class Announcer:
    """Publishes on the hub: `job:N` and `jobs` for people, `queue:NODE` for nodes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._told: dict[int, asyncio.TimerHandle] = {}
        self._later: dict[int, JobNews] = {}
        self._asleep: deque[tuple[str, int]] = deque()

    def tell(self, news: JobNews, *, now: bool) -> None:
        """Tell it now, or with what else happens to this job soon."""
        if now or news.ended:
            self._later.pop(news.job, None)
            self._publish(news)
        elif news.job in self._told:
            self._later[news.job] = news
        else:
            self._publish(news)
            self._told[news.job] = asyncio.get_running_loop().call_later(PACE_S, self._again, news.job)

    def _again(self, job: int) -> None:
        del self._told[job]
        if (news := self._later.pop(job, None)) is not None:
            self.tell(news, now=False)

    def _publish(self, news: JobNews) -> None:
        self._hub.publish("jobs", news)
        self._hub.publish(f"job:{news.job}", news)

    def wake(self, nodes: Iterable[str], job: int) -> None:
        """There is something in these nodes' queues: a few hear it at once, many one slice after the other."""
        idle = not self._asleep
        self._asleep.extend((node, job) for node in nodes)
        if idle:
            self._wake()

    def _wake(self) -> None:
        for _ in range(min(WOKEN, len(self._asleep))):
            node, job = self._asleep.popleft()
            self._hub.publish(f"queue:{node}", job)
        if self._asleep:
            asyncio.get_running_loop().call_later(SLICE_S, self._wake)

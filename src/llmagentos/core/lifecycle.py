"""What every process that starts processes needs: backoff between restarts, and children that never outlive it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

_PR_SET_PDEATHSIG = 1  # prctl(2)
_REAP_S = 5.0


@dataclass(slots=True)
class Backoff:
    """How long to wait before a dead child is started again: exponential, with jitter so that many do not align.

    All times are seconds; ask with the uptime of the process that ended.
    """

    first: float = 0.5
    factor: float = 2.0
    most: float = 30.0
    healthy: float = 30.0  # a process that lived this long starts over at `first`
    jitter: float = 0.2  # part of the delay that is random
    chance: Callable[[], float] = field(default=random.random, repr=False)
    failures: int = 0

    def died(self, uptime: float) -> float:
        """The delay before the next start of a process that lived for `uptime` seconds."""
        if uptime >= self.healthy:
            self.failures = 0
        # The exponent is bounded: after long failure 2.0 ** n would overflow.
        delay = min(self.most, self.first * self.factor ** min(self.failures, 60))
        self.failures += 1
        return delay * (1 - self.jitter + 2 * self.jitter * self.chance())


def die_with(parent: int, *, with_signal: int = signal.SIGTERM) -> Callable[[], None]:
    """A `preexec_fn` that has the kernel send the child `with_signal` when the process `parent` is gone.

    So nothing runs on unsupervised after `kill -9` of its supervisor. Linux only; elsewhere it does nothing.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, with_signal, 0, 0, 0)
        if os.getppid() != parent:  # it died between fork and prctl: no signal would ever come
            os._exit(1)

    return arm


async def reap(process: asyncio.subprocess.Process, *, within: float = _REAP_S) -> None:
    """Wait for the end of a process whose output nobody wants any more, for `within` seconds at most.

    `Process.wait` returns only when its pipes are closed too, and one that asyncio stopped reading because its buffer
    was full never is; so what is left is read and thrown away. Somebody else may hold it open.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            for pipe in (process.stdout, process.stderr):
                while pipe is not None and await pipe.read(65536):
                    continue
            await process.wait()

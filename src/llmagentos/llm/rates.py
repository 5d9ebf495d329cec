"""How many tokens a second come out of each model."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60


class Rate:
    """Sum over the last minute, by the second; `now` is in seconds and never goes back."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._sum = 0

    def add(self, amount: int, now: float) -> None:
        """So many more at `now`."""
        second = int(now)
        if self._seconds and self._seconds[-1][0] >= second:
            last, so_far = self._seconds[-1]
            self._seconds[-1] = (last, so_far + amount)
        else:
            self._seconds.append((second, amount))
        self._sum += amount
        self._forget(now)

    def per_second(self, now: float) -> float:
        """The mean over the last minute, or over the time since the first of it when that is shorter."""
        self._forget(now)
        if not self._seconds:
            return 0.0
        return self._sum / max(1.0, min(float(WINDOW_S), now - self._seconds[0][0]))

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - WINDOW_S:
            self._sum -= self._seconds.popleft()[1]

"""Whether calls are still sent to an engine that fails (circuit breaker; Nygard, "Release It!", 2007).

closed     -> open       too many of the last calls failed, or one said that nothing is left (quota)
open       -> half-open  after a pause, doubled each time up to a limit
half-open  -> closed     the one call that was let through went well
half-open  -> open       it did not
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """A breaker opens when, of the last `window` calls and at least `least` of them, the share `failing` failed."""

    window: int = 20
    least: int = 5
    failing: float = 0.5
    first_pause_s: float = 2.0
    longest_pause_s: float = 300.0
    quota_pause_s: float = 60.0


class Breaker:
    """The breaker of one engine. Ask `allows` before each call and report its end."""

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self._settings = settings or BreakerSettings()
        self._ends: deque[bool] = deque(maxlen=self._settings.window)
        self._until: float | None = None
        self._pause_s = self._settings.first_pause_s
        self._probing = False
        self.reason = ""

    def state(self, now: float) -> State:
        """What it is at `now`."""
        if self._until is None:
            return "closed"
        return "open" if now < self._until else "half-open"

    def allows(self, now: float) -> bool:
        """Whether a call may be sent; when half-open it is for one call, whose end must be reported."""
        if not self.would_allow(now):
            return False
        self._probing = self.state(now) == "half-open"
        return True

    def would_allow(self, now: float) -> bool:
        """What `allows` would say, without taking the one call of a half-open breaker."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._probing)

    def retry_after(self, now: float) -> float:
        """Seconds until a call may be let through; 0 unless it is open."""
        return max(0.0, (self._until or now) - now)

    def succeeded(self) -> None:
        """A call went well."""
        if self._until is not None:
            if not self._probing:
                return  # it was sent before the breaker opened
            self._until = None
            self._ends.clear()
            self._pause_s = self._settings.first_pause_s
            self.reason = ""
        self._probing = False
        self._ends.append(True)

    def failed(self, why: str, now: float) -> bool:
        """A call failed by the engine's fault (not the caller's); whether that opened the breaker."""
        self._ends.append(False)
        if self._until is not None:
            if not self._probing:
                return False  # it was sent before the breaker opened
            return self._open(why, self._longer(), now)
        failures = self._ends.count(False)
        if len(self._ends) >= self._settings.least and failures >= self._settings.failing * len(self._ends):
            return self._open(why, self._pause_s, now)
        return False

    def exhausted(self, why: str, now: float, retry_after: float | None = None) -> bool:
        """The engine said that the quota is used up: no call can succeed; whether that opened the breaker."""
        opened = self.state(now) != "open"
        self._open(why, self._settings.quota_pause_s if retry_after is None else retry_after, now)
        return opened

    def abandoned(self) -> None:
        """A call ended without telling anything about the engine (it was cancelled)."""
        self._probing = False

    def _longer(self) -> float:
        self._pause_s = min(self._settings.longest_pause_s, self._pause_s * 2)
        return self._pause_s

    def _open(self, why: str, pause: float, now: float) -> bool:
        self._until = now + pause
        self._probing = False
        self.reason = why
        return True

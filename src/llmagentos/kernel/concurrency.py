"""How much an endpoint bears: calls at once, found by trying; requests and tokens per minute, as told.

Calls at once follow TCP's congestion control (additive increase, multiplicative decrease: Chiu and
Jain, 1989): a full window of calls that went well allows one more, a refusal or a first token that
comes far later than usual takes a third away, at most once per window.
"""

from __future__ import annotations

from collections.abc import Mapping

_DECREASE = 0.7
_SLOW = 3.0
_SMOOTHING = 0.1
_DEFAULT_BACKOFF_S = 1.0


class AdaptiveLimit:
    """Calls at once, between 1 and `most`; starts at `most / 4` unless told."""

    def __init__(self, most: int, start: int | None = None) -> None:
        self._most = float(most)
        self._limit = float(start if start is not None else max(1, most // 4))
        self._usual_ttft: float | None = None
        self._decreased_at = float("-inf")

    @property
    def slots(self) -> int:
        """How many calls may run now."""
        return int(self._limit)

    def succeeded(self, *, running: int, begun: float, ttft_s: float | None, now: float) -> None:
        """A call that started at `begun` while `running` were under way (itself included) went well."""
        if ttft_s is not None:
            usual = self._usual_ttft
            if usual is not None and ttft_s > _SLOW * usual and begun > self._decreased_at:
                self._decrease(now)
                return
            # The usual is that of an endpoint at ease: it sinks at once and rises slowly.
            self._usual_ttft = (
                ttft_s if usual is None or ttft_s < usual else usual + _SMOOTHING * (ttft_s - usual) / self._limit
            )
        if running >= self.slots:  # a limit that is not used says nothing about what would be borne
            self._limit = min(self._most, self._limit + 1.0 / self._limit)

    def overloaded(self, *, begun: float, now: float) -> None:
        """The endpoint refused a call. Calls that began before the last decrease do not count again."""
        if begun > self._decreased_at:
            self._decrease(now)

    def _decrease(self, now: float) -> None:
        self._limit = max(1.0, self._limit * _DECREASE)
        self._decreased_at = now


class TokenBucket:
    """`per_minute` units a minute, with a minute's worth as the most that is saved up."""

    def __init__(self, per_minute: float, *, now: float = 0.0) -> None:
        self._rate = per_minute / 60.0
        self._most = float(per_minute)
        self._level = self._most
        self._at = now

    def ready_at(self, units: float, now: float) -> float:
        """When `units` can be taken; more than the bucket holds can be taken when it is full."""
        self._fill(now)
        missing = min(units, self._most) - self._level
        return now if missing <= 1e-9 else now + missing / self._rate

    def take(self, units: float, now: float) -> None:
        """Take `units`; the level may go below zero. Negative units give back what was not used."""
        self._fill(now)
        self._level = min(self._most, self._level - units)

    def learn(self, left: float, now: float) -> None:
        """The endpoint says that `left` units are left: never assume more."""
        self._fill(now)
        self._level = min(self._level, left)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._most, self._level + (now - self._at) * self._rate)
            self._at = now


class Throughput:
    """Limits per minute of an endpoint, and the time until which it asked to be left alone."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self._requests = TokenBucket(requests) if requests else None
        self._tokens = TokenBucket(tokens) if tokens else None
        self.backoff_until = float("-inf")

    def ready_at(self, tokens: int, now: float) -> float:
        """When a call of so many tokens may start; `now` when it may at once."""
        ready = max(now, self.backoff_until)
        if self._requests is not None:
            ready = max(ready, self._requests.ready_at(1, now))
        if self._tokens is not None:
            ready = max(ready, self._tokens.ready_at(tokens, now))
        return ready

    def start(self, tokens: int, now: float) -> None:
        """A call starts."""
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)

    def correct(self, tokens: int, now: float) -> None:
        """A call took `tokens` more than was expected (fewer when negative)."""
        if self._tokens is not None and tokens:
            self._tokens.take(tokens, now)

    def back_off(self, retry_after: float | None, now: float) -> None:
        """The endpoint refused; it wants to be asked again after so many seconds."""
        self.backoff_until = max(self.backoff_until, now + (_DEFAULT_BACKOFF_S if retry_after is None else retry_after))

    def learn(self, left: Mapping[str, float], now: float) -> None:
        """What the endpoint's headers say is left of `requests` and `tokens` in this minute."""
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None and name in left:
                bucket.learn(left[name], now)

"""Maintenance windows: named times in which jobs may begin."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from llmagentos.fleet import cron
from llmagentos.fleet.job_gates import Opening


class Window(Protocol):
    """Opens whenever `cron` fires in `zone`, for `duration_s` seconds."""

    @property
    def cron(self) -> str: ...

    @property
    def duration_s(self) -> float: ...

    @property
    def zone(self) -> str: ...


class Windows:
    """The windows of the configuration, by name. Raises `InvalidInput` for one that cannot be."""

    def __init__(self, windows: Mapping[str, Window]) -> None:
        self._windows: dict[str, Window] = {}
        self.become(windows)

    def become(self, windows: Mapping[str, Window]) -> bool:
        """Other windows from now on; whether they differ. Raises `InvalidInput`, then they stay as they were."""
        for window in windows.values():
            cron.check(window.cron, window.zone)
        changed = self._windows != windows
        for name in self._windows.keys() - windows.keys():
            del self._windows[name]
        self._windows.update(windows)
        return changed

    @property
    def names(self) -> Collection[str]:
        """Their names, now and after every change."""
        return self._windows.keys()

    def opening(self, name: str, now: float) -> Opening:
        """Whether the window is open at `now`, and until when. One that was taken out stays closed."""
        window = self._windows.get(name)
        if window is None:
            return Opening(open=False)
        opened = cron.latest(window.cron, window.zone, now, since=now - window.duration_s)
        if opened is None:
            return Opening(open=False, until=cron.following(window.cron, window.zone, now))
        return Opening(open=True, until=opened + window.duration_s)

"""Where a request is sent next when the engine that had it failed before any text came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from llmagentos.core import metrics
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.kernel.routing import Failure, Fallback, fallback
from llmagentos.llm.directory import Directory, Model
from llmagentos.llm.failures import failure, retry_after

REQUEUES = 3
"""How often a request waits again after a busy engine refused it."""


@dataclass(slots=True)
class Tries:
    """What was tried for one request: first another engine of the model, then its fallbacks, then waiting again."""

    wanted: Model
    deadline: float
    model: Model = field(init=False)
    """To which the request goes now."""
    failed: list[str] = field(default_factory=list)
    avoid: set[str] = field(default_factory=set)
    """Engines of `model` that failed."""
    requeued: int = 0

    def __post_init__(self) -> None:
        self.model = self.wanted

    def after(
        self, error: LLMAgentOSError, now: float, *, models: Directory, usable: Callable[[str], list[str]]
    ) -> bool:
        """Whether to try again, with `model`. `usable` gives the engines of a model that may be sent calls."""
        kind = failure(error)
        if kind is None:
            return False
        if kind != "quota" and self.avoid and set(usable(self.model.name)) - self.avoid:
            return True
        if (other := self._other(kind, usable)) is not None:
            metrics.LLM_FALLBACKS.labels(self.wanted.name, other, kind).inc()
            self.model, self.avoid = models[other], set()
            return True
        wait = retry_after(error)
        if wait is None or self.requeued >= REQUEUES or now + wait >= self.deadline:
            return False
        metrics.LLM_REQUEUED.labels(self.model.name).inc()
        self.requeued += 1
        self.avoid = set()
        return True

    def _other(self, kind: Failure, usable: Callable[[str], list[str]]) -> str | None:
        self.failed.append(self.model.name)
        chain = [Fallback(name) for name in self.wanted.fallbacks]
        able = [name for name in self.wanted.fallbacks if usable(name)]
        return fallback(chain, kind, tried=self.failed, usable=able)

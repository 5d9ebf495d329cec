"""The engines that serve one model: where a call goes, and which of them are left alone for now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import psutil

from llmagentos.api.llm import ModelState, ReplicaInfo
from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.kernel.breaker import Breaker, BreakerSettings
from llmagentos.kernel.routing import Router
from llmagentos.llm.directory import Model
from llmagentos.llm.engines.engine import Engine, EngineStatus, QuotaExhausted
from llmagentos.llm.failures import BreakerOpen, broken
from llmagentos.llm.residence import Residence

SETTINGS = BreakerSettings()
_AGAIN_S = 1.0

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a call goes."""

    engine: Engine
    answers: Callable[[], None]
    """Tells that something came from it: of one that is tried again the others need not wait for the end."""


class Replicas:
    """Equal engines with `slots` each and, when `guarded`, a breaker each.

    `on_change` is told when a breaker opens or closes.
    """

    def __init__(
        self,
        model: str,
        engines: Mapping[str, Engine],
        *,
        slots: int,
        guarded: bool,
        clock: Clock,
        residence: Residence | None = None,
    ) -> None:
        self._model = model
        self._residence = residence
        self._engines = dict(engines)
        self._slots = slots
        self._guarded = guarded
        self._clock = clock
        self._router = Router(dict.fromkeys(engines, slots))
        self._breakers = {name: Breaker(SETTINGS) for name in engines}
        self._exhausted = False
        self.on_change: Callable[[], None] = lambda: None
        for name, breaker in self._breakers.items():
            metrics.LLM_BREAKER.labels(model, name).set_function(partial(_is_open, breaker, clock))

    @classmethod
    def of(cls, model: Model, clock: Clock) -> Replicas:
        """The engines of a model, which share its slots evenly."""
        slots = model.capacity.slots // len(model.engines)
        return cls(
            model.name, model.engines, slots=slots, guarded=model.guarded, clock=clock, residence=model.residence
        )

    def called(self) -> None:
        """A call comes: a model of this machine that is not in memory is loaded."""
        if self._residence is not None:
            self._residence.called()

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self._engines) > 1

    def usable(self) -> list[str]:
        """The engines that a call may be sent to now."""
        if self._residence is not None and self._residence.refusal() is not None:
            return []
        now = self._clock.monotonic()
        return [name for name, breaker in self._breakers.items() if breaker.would_allow(now)]

    @property
    def probed(self) -> bool:
        """Whether a call is under way that shows whether an engine works again: others may wait for it."""
        now = self._clock.monotonic()
        return any(each.state(now) == "half-open" and not each.would_allow(now) for each in self._breakers.values())

    def slots(self) -> int:
        """Calls that may run at once: one on an engine that is tried again, none on one that is left alone or loads."""
        if self._residence is not None and not self._residence.ready:
            return 0
        now = self._clock.monotonic()
        worth = {"closed": self._slots, "half-open": 1, "open": 0}
        return sum(worth[breaker.state(now)] for breaker in self._breakers.values())

    def refusal(self) -> LLMAgentOSError:
        """The error for a call that no engine may be sent."""
        if self._residence is not None and (failed := self._residence.refusal()) is not None:
            return failed
        now = self._clock.monotonic()
        first = min(self._breakers.values(), key=lambda breaker: breaker.retry_after(now))
        wait = max(_AGAIN_S, first.retry_after(now))
        message = f"no calls are sent to the model {self._model!r} for {wait:.0f} s: {first.reason}"
        hint = f"models.{self._model}.fallbacks in llmagentos.yaml names models that take over"
        if self._exhausted:
            return QuotaExhausted(message, retry_after=wait, hint=hint)
        return BreakerOpen(message, retry_after=wait, hint=hint)

    @contextmanager
    def place(self, prefix: str | None, tokens_in: int, avoid: set[str]) -> Iterator[Placed]:
        """The engine for a call, its slot there for the block. What the block raises is held against it.

        An engine that fails the call is added to `avoid`; those that are in are taken only when no other may
        be. Raises `BreakerOpen` or `QuotaExhausted` when there is none.
        """
        usable = self.usable()
        others = [name for name in usable if name not in avoid]
        name = self._router.place(prefix, tokens_in, usable=others or usable)
        if name is None:
            name = self._router.place(prefix, tokens_in, usable=usable)
        if name is None:
            raise self.refusal()
        breaker = self._breakers[name]
        probing = breaker.state(self._clock.monotonic()) == "half-open"
        breaker.allows(self._clock.monotonic())

        def answers() -> None:
            nonlocal probing
            if probing:
                probing = False
                self._answers_again(name)

        try:
            yield Placed(self._engines[name], answers)
        except LLMAgentOSError as error:
            avoid.add(name)
            self._judge(name, error, probing=probing)
            raise
        except BaseException:
            if probing:
                breaker.abandoned()
            raise
        else:
            answers()
            if breaker.state(self._clock.monotonic()) == "closed":
                breaker.succeeded()
        finally:
            self._router.leave(name)

    def _answers_again(self, name: str) -> None:
        self._breakers[name].succeeded()
        self._exhausted = False
        _log.info("engine answers again", model=self._model, engine=name)
        self.on_change()

    async def status(self) -> tuple[EngineStatus, list[ReplicaInfo]]:
        """Ready when one engine is, the note says what is wrong with any; and each of them."""
        found = await asyncio.gather(*(self._seen(name) for name in self._engines))
        states = [replica.state for replica in found]
        state: ModelState = "ready" if "ready" in states else "loading" if "loading" in states else states[0]
        notes = [f"{r.name}: {r.note}" if self.several else r.note for r in found if r.note]
        if self._residence is None and not self.usable():
            notes.insert(0, self.refusal().message)
        return EngineStatus(state, "; ".join(notes) or None), found

    async def _seen(self, name: str) -> ReplicaInfo:
        engine = self._engines[name]
        status, signs = await asyncio.gather(engine.status(), engine.signs())
        state, note = status.state, status.note
        if self._residence is None and state == "ready":
            if signs.ill is not None:
                state, note = "unreachable", signs.ill
            elif signs.loaded is False:
                state = "unloaded"
        pid = None if self._residence is None else self._residence.pid
        return ReplicaInfo(
            name,
            state,
            self._router.running(name),
            note,
            signs.server,
            signs.version,
            signs.running,
            signs.waiting,
            signs.cache_usage,
            signs.tokens_per_s,
            signs.ttft_s,
            signs.memory_bytes if pid is None else _memory(pid),
            signs.device_memory_bytes,
            signs.unloads_at if self._residence is None else self._residence.unloads_at,
            pid,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for engine in self._engines.values():
            await engine.aclose()

    def _judge(self, name: str, error: LLMAgentOSError, *, probing: bool) -> None:
        now = self._clock.monotonic()
        breaker = self._breakers[name]
        opened = False
        if isinstance(error, QuotaExhausted):  # of the account that all of them use
            self._exhausted = True
            all_of_them = [each.exhausted(error.message, now, error.retry_after) for each in self._breakers.values()]
            opened = any(all_of_them)
        elif self._guarded and broken(error) and (probing or breaker.state(now) == "closed"):
            opened = breaker.failed(error.message, now)
        elif probing:
            breaker.abandoned()
        if opened:
            _log.warning("breaker opened", model=self._model, engine=name, why=error.message)
            self.on_change()


def _memory(pid: int) -> int | None:
    """Main memory of a process; None when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _is_open(breaker: Breaker, clock: Clock) -> float:
    return float(breaker.state(clock.monotonic()) == "open")

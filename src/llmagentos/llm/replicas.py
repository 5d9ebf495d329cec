"""The engines that serve one model: where a call goes, and which of them are left alone for now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from llmagentos.core import log, metrics
from llmagentos.core.clock import Clock
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.kernel.breaker import Breaker, BreakerSettings
from llmagentos.kernel.routing import Router
from llmagentos.llm.directory import Model
from llmagentos.llm.engines.engine import Engine, EngineStatus, QuotaExhausted
from llmagentos.llm.failures import BreakerOpen, broken

SETTINGS = BreakerSettings()
_AGAIN_S = 1.0

_log = log.get(__name__)


class Replicas:
    """Equal engines with `slots` each and, when `guarded`, a breaker each. `on_open` is told when one opens."""

    def __init__(self, model: str, engines: Mapping[str, Engine], *, slots: int, guarded: bool, clock: Clock) -> None:
        self._model = model
        self._engines = dict(engines)
        self._slots = slots
        self._guarded = guarded
        self._clock = clock
        self._router = Router(dict.fromkeys(engines, slots))
        self._breakers = {name: Breaker(SETTINGS) for name in engines}
        self._exhausted = False
        self.on_open: Callable[[], None] = lambda: None
        for name, breaker in self._breakers.items():
            metrics.LLM_BREAKER.labels(model, name).set_function(partial(_is_open, breaker, clock))

    @classmethod
    def of(cls, model: Model, clock: Clock) -> Replicas:
        """The engines of a model, which share its slots evenly."""
        slots = model.capacity.slots // len(model.engines)
        return cls(model.name, model.engines, slots=slots, guarded=model.guarded, clock=clock)

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self._engines) > 1

    def usable(self) -> list[str]:
        """The engines that a call may be sent to now."""
        now = self._clock.monotonic()
        return [name for name, breaker in self._breakers.items() if breaker.would_allow(now)]

    def slots(self) -> int:
        """Calls that may run at once: one on an engine that is tried again, none on one that is left alone."""
        now = self._clock.monotonic()
        worth = {"closed": self._slots, "half-open": 1, "open": 0}
        return sum(worth[breaker.state(now)] for breaker in self._breakers.values())

    def refusal(self) -> LLMAgentOSError:
        """The error for a call that no engine may be sent."""
        now = self._clock.monotonic()
        first = min(self._breakers.values(), key=lambda breaker: breaker.retry_after(now))
        wait = max(_AGAIN_S, first.retry_after(now))
        message = f"no calls are sent to the model {self._model!r} for {wait:.0f} s: {first.reason}"
        hint = f"models.{self._model}.fallbacks in llmagentos.yaml names models that take over"
        if self._exhausted:
            return QuotaExhausted(message, retry_after=wait, hint=hint)
        return BreakerOpen(message, retry_after=wait, hint=hint)

    @contextmanager
    def place(self, prefix: str | None, tokens_in: int, avoid: set[str]) -> Iterator[Engine]:
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
        try:
            yield self._engines[name]
        except LLMAgentOSError as error:
            avoid.add(name)
            self._judge(name, error, probing=probing)
            raise
        except BaseException:
            if probing:
                breaker.abandoned()
            raise
        else:
            if probing:
                self._exhausted = False
                _log.info("engine answers again", model=self._model, engine=name)
            if probing or breaker.state(self._clock.monotonic()) == "closed":
                breaker.succeeded()
        finally:
            self._router.leave(name)

    async def status(self) -> EngineStatus:
        """Ready when one engine is; the note says what is wrong with any."""
        found = {name: await engine.status() for name, engine in self._engines.items()}
        states = [status.state for status in found.values()]
        state = next((s for s in ("ready", "loading") if s in states), "unreachable")
        prefix = {name: f"{name}: " if self.several else "" for name in found}
        notes = [prefix[name] + status.note for name, status in found.items() if status.note]
        if not self.usable():
            notes.insert(0, self.refusal().message)
        return EngineStatus(state, "; ".join(notes) or None)  # type: ignore[arg-type]

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
            self.on_open()


def _is_open(breaker: Breaker, clock: Clock) -> float:
    return float(breaker.state(clock.monotonic()) == "open")

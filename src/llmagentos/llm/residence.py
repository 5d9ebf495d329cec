"""The models of this machine: whether each is in memory, and the wish that it be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.config.schema import idle_seconds
from llmagentos.core.errors import Conflict, LLMAgentOSError
from llmagentos.core.state import StateDirectory
from llmagentos.kernel.residency import Residency, Seen
from llmagentos.llm.engines import wishes
from llmagentos.llm.engines.engine import EngineDown, EngineRestarting, EngineStatus
from llmagentos.llm.engines.local import Place, alive
from llmagentos.llm.engines.wishes import Wish

LOOK_S = 0.2

_log = log.get(__name__)


class ModelBusy(Conflict):
    """A model that calls use is not unloaded just so."""

    code = "model_busy"


class NotLoadable(Conflict):
    """The model is not one that this system loads."""

    code = "not_loadable"


class Residence:
    """One model of this machine. `on_change` is told when its state changed."""

    def __init__(self, model: str, files: Place, state: StateDirectory, clock: Clock, *, keep_alive: str) -> None:
        wish = wishes.read(state).get(model, Wish(0, keep_alive == "always"))
        self._model = model
        self._files = files
        self._state = state
        self._clock = clock
        self._residency = Residency(
            generation=wish.generation if wish.wanted else None,
            last=wish.generation,
            idle_s=idle_seconds(keep_alive),
            now=clock.monotonic(),
        )
        self._wished: bool | None = None  # what the supervisor has not been told yet
        self.on_change: Callable[[], None] = lambda: None

    @property
    def ready(self) -> bool:
        """Whether calls may be sent to it."""
        return self._residency.state == "ready"

    @property
    def pid(self) -> int | None:
        """Its process while it runs."""
        report = self._files.reported()
        return report.pid if report is not None and alive(report.pid) else None

    @property
    def unloads_at(self) -> float | None:
        """When it leaves memory if nobody calls, as wall-clock seconds."""
        at = self._residency.idle_at
        return None if at is None else self._clock.time() + at - self._clock.monotonic()

    @property
    def since(self) -> float:
        """When it came into its state, as wall-clock seconds."""
        return self._clock.time() + self._residency.since - self._clock.monotonic()

    async def status(self) -> EngineStatus:
        """Its state, and why it is not ready."""
        self.look()
        return EngineStatus(self._residency.state, self._residency.note)

    def called(self) -> None:
        """A call comes: have it loaded when it is not."""
        if self._residency.want(self._clock.monotonic()):
            self._wish(wanted=True)
            self.on_change()
        if not self.ready:
            self.look()

    def load(self) -> None:
        """Have it loaded now; one that failed is tried again at once."""
        self.look()
        if self._residency.state == "failed":
            self._residency.drop(self._clock.monotonic())
        self.called()

    def unload(self) -> None:
        """Have it leave memory; the next call loads it again."""
        if self._residency.generation is None:
            return
        self._residency.drop(self._clock.monotonic())
        self._wish(wanted=False)
        self.on_change()

    def refusal(self) -> LLMAgentOSError | None:
        """The error for calls while it has failed; None while they may wait for it."""
        if self._residency.state != "failed":
            return None
        return EngineDown(
            f"the engine of {self._model!r} does not run: {self._residency.note}",
            hint="`llmctl up` starts it, `llmctl status` shows it, its log is below logs/ in the state directory",
            retry_after=5.0,
        )

    async def lost(self, _: str) -> LLMAgentOSError:
        """The error for when it does not answer."""
        self.look()
        return self.refusal() or EngineRestarting(
            f"the engine of {self._model!r} is being started again", hint="`llmctl models`", retry_after=2.0
        )

    def look(self) -> None:
        """See what has become of its process."""
        if self._wished is not None:
            self._tell()
        if self._residency.see(self._seen(), self._clock.monotonic()):
            _log.info("model", model=self._model, state=self._residency.state, note=self._residency.note)
            self.on_change()

    def rest(self, busy: int) -> None:
        """Have it leave memory when nobody called it for long; `busy` calls use it or wait for it."""
        if self._residency.idle(busy, self._clock.monotonic()):
            _log.info("model idle", model=self._model)
            self.unload()

    def _seen(self) -> Seen:
        report = self._files.reported()
        if report is None:
            return Seen(None, supervised=self._supervised())
        runs = alive(report.pid)
        supervised = runs or self._supervised()
        return Seen(report.state, report.generation, runs, supervised, report.message)

    def _supervised(self) -> bool:
        holder = self._state.holder()
        return holder is not None and holder.pid != os.getpid()

    def _wish(self, *, wanted: bool) -> None:
        self._wished = wanted
        self._tell()
        if self._wished is not None:
            _log.error("the wish for a model cannot be written yet", model=self._model, wanted=wanted)

    def _tell(self) -> None:
        """Leave the wish for the supervisor; where that cannot be written (the disk is full) `look` tries again."""
        assert self._wished is not None
        generation = self._residency.generation
        known = wishes.read(self._state)
        kept = known.get(self._model, Wish()).generation if generation is None else generation
        with suppress(OSError):
            wishes.write(self._state, known | {self._model: Wish(kept, self._wished)})
            self._wished = None


def residence_of(model: str, residence: Residence | None) -> Residence:
    """Raises `NotLoadable` for a model that another system serves."""
    if residence is None:
        raise NotLoadable(
            f"{model!r} is not loaded here: another system serves it", hint="its own tools load and unload it"
        )
    return residence


def require_idle(model: str, busy: int) -> None:
    """Raises `ModelBusy` when calls use a model."""
    if busy:
        raise ModelBusy(
            f"{busy} calls use {model!r} or wait for it",
            hint=f"`llmctl models --queue` shows them; `llmctl models unload {model} --force` fails them",
        )


async def keep(residences: Iterable[tuple[Residence, Callable[[], int]]]) -> None:
    """Look at the processes and drop idle models, until cancelled. Each comes with how many calls use it."""
    watched = list(residences)
    while watched:
        for residence, busy in watched:
            residence.look()
            residence.rest(busy())
        await asyncio.sleep(LOOK_S)

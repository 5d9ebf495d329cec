"""Continuous batching at the level of tokens: one thread that reads prompts and generates, step by step.

Between two steps of the batch, a part of one waiting prompt is read: a long prompt slows the answers
under way, it does not stop them. Calls that ended or were given up leave before the next step.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from llmagentos.core import log
from llmagentos.llm.engines.transformers.rows import Rows, Stepper
from llmagentos.llm.engines.transformers.sampling import Picked, Sampler

PROMPT_PART = 512
"""Tokens of a prompt that are read between two steps."""

_log = log.get(__name__)

End = Literal["stop", "length"]


@dataclass(eq=False, slots=True)
class Job:
    """One call. `tell` gets each token, then how it ended, or what failed; from the batcher's thread."""

    prompt: list[int]
    limit: int
    """Tokens that it may produce."""
    sampler: Sampler
    ends: frozenset[int]
    """Tokens with which the model ends its answer."""
    tell: Callable[[Picked | End | Exception], None]
    forced: tuple[int, ...] = ()
    """The first tokens of the answer, where the model's configuration names them."""
    gone: bool = False
    """Set by the caller when nobody waits for the answer any more."""
    produced: list[int] = field(default_factory=list)
    read: int = 0
    """Tokens of the prompt that have been read."""


@dataclass(eq=False, slots=True)
class _Group:
    """Calls that step together."""

    rows: Rows
    jobs: list[Job]


class Batcher:
    """Generates at most `slots` calls at once."""

    def __init__(self, stepper: Stepper, *, slots: int, start: int = 0) -> None:
        self._stepper = stepper
        self._slots = slots
        self._start = start
        self._arriving: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._reading: tuple[Job, Rows] | None = None
        self._groups: list[_Group] = []
        self.steps = 0
        """Steps of batches so far."""
        self.tokens = 0
        """Tokens produced so far."""

    @property
    def running(self) -> int:
        """Calls in the batch."""
        return sum(len(group.jobs) for group in self._groups)

    @property
    def waiting(self) -> int:
        """Calls whose prompt is not read yet."""
        return len(self._waiting) + (self._reading is not None) + self._arriving.qsize()

    def submit(self, job: Job) -> None:
        """Generate `job` as soon as there is room."""
        self._arriving.put(job)

    def start(self) -> threading.Thread:
        """Run in a thread of its own."""
        thread = threading.Thread(target=self.run, name="batcher", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End `run` when all that was submitted has been answered."""
        self._arriving.put(None)

    def run(self) -> None:
        """Generate until `stop`."""
        more = True
        with torch.inference_mode():
            while more or self.running or self.waiting:
                more = self._arrivals(wait=more and not (self.running or self._reading or self._waiting)) and more
                self._admit()
                for group in list(self._groups):
                    self._guarded(group.jobs, partial(self._step, group))

    def _arrivals(self, *, wait: bool) -> bool:
        """Take what was submitted; False when `stop` was among it."""
        going = True
        while wait or not self._arriving.empty():
            job = self._arriving.get()
            wait = False
            if job is None:
                going = False
            else:
                self._waiting.append(job)
        return going

    def _guarded(self, jobs: list[Job], act: Callable[[], None]) -> None:
        """What a step raises (memory that runs out, a model's own errors) ends its calls, not the process."""
        try:
            act()
        except Exception as error:  # the loop that supervises all calls
            _log.error("generation failed", error=str(error), calls=len(jobs))
            for job in jobs:
                job.tell(error)
                job.gone = True
            if self._reading is not None and self._reading[0].gone:
                self._reading = None
            self._groups = [group for group in self._groups if not all(job.gone for job in group.jobs)]

    def _admit(self) -> None:
        """Read a part of one prompt; with an encoder, as many texts as there is room for."""
        while (job := self._next()) is not None:
            if self._stepper.encodes:
                self._guarded([job], partial(self._encode, job))
            else:
                self._guarded([job], partial(self._read, job))
                return

    def _next(self) -> Job | None:
        """The call whose prompt is read next."""
        if self._reading is not None:
            if not self._reading[0].gone:
                return self._reading[0]
            self._reading = None
        while self._waiting and self.running < self._slots:
            job = self._waiting.popleft()
            if not job.gone:
                return job
        return None

    def _encode(self, job: Job) -> None:
        self._began(job, *self._stepper.encode(job.prompt, self._start))

    def _read(self, job: Job) -> None:
        if self._reading is None:
            self._reading = (job, self._stepper.begin())
        rows = self._reading[1]
        part = job.prompt[job.read : job.read + PROMPT_PART]
        logits = self._stepper.read(rows, part)
        job.read += len(part)
        if job.read == len(job.prompt):
            self._reading = None
            self._began(job, rows, logits)

    def _began(self, job: Job, rows: Rows, logits: Any) -> None:
        """The prompt is read: pick the first token, and join the calls that can step with this one."""
        if self._ended(job, logits[0]):
            return
        for group in self._groups:
            if self._stepper.positions or group.rows.width == rows.width:
                group.rows.join(rows)
                group.jobs.append(job)
                return
        self._groups.append(_Group(rows, [job]))

    def _step(self, group: _Group) -> None:
        self._keep(group, [i for i, job in enumerate(group.jobs) if not job.gone])
        if not group.jobs:
            return
        logits = self._stepper.step(group.rows, [job.produced[-1] for job in group.jobs])
        self.steps += 1
        self._keep(group, [i for i, job in enumerate(group.jobs) if not self._ended(job, logits[i])])

    def _keep(self, group: _Group, rows: list[int]) -> None:
        if len(rows) == len(group.jobs):
            return
        group.jobs = [group.jobs[i] for i in rows]
        if rows:
            group.rows.keep(rows)
        else:
            self._groups.remove(group)

    def _ended(self, job: Job, logits: Any) -> bool:
        """Pick and tell the next token of a call; whether it was the last one."""
        at = len(job.produced)
        picked = Picked(job.forced[at]) if at < len(job.forced) else job.sampler.pick(logits, job.prompt, job.produced)
        if picked.token in job.ends:
            job.tell("stop")
            return True
        job.produced.append(picked.token)
        self.tokens += 1
        job.tell(picked)
        if len(job.produced) >= job.limit:
            job.tell("length")
            return True
        return False


def check(stepper: Stepper, vocabulary: int) -> bool:
    """Whether two sequences generated together come out as each does alone: not every architecture can be batched."""
    if stepper.encodes or not stepper.positions:
        return True  # only rows of equal length are joined
    with torch.inference_mode():
        return _same(stepper, vocabulary)


def _same(stepper: Stepper, vocabulary: int) -> bool:
    first, second = [t % vocabulary for t in (5, 7, 11, 13, 17)], [t % vocabulary for t in (19, 23)]
    together, alone = stepper.begin(), stepper.begin()
    stepper.read(together, first)
    other = stepper.begin()
    stepper.read(other, second)
    stepper.read(alone, second)
    try:
        together.join(other)
        joined = stepper.step(together, [first[0], first[1]])[1].float()
        together.keep([1])
        joined_next = stepper.step(together, [first[2]])[0].float()
    except (RuntimeError, AttributeError, TypeError, IndexError, ValueError):  # a cache of another kind
        return False
    single = stepper.step(alone, [first[1]])[0].float()
    single_next = stepper.step(alone, [first[2]])[0].float()
    return _alike(joined, single) and _alike(joined_next, single_next)


def _alike(one: Any, other: Any) -> bool:
    return bool(torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99)

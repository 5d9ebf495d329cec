"""What there is to see of the gate: models, who runs and who waits, and gauges of the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import get_args

from llmagentos.api.llm import ModelInfo, ModelQueue, RunningCall, WaitingCall
from llmagentos.core import metrics
from llmagentos.core.clock import Clock
from llmagentos.kernel.calls import Reason, Running, Submission, Waiting
from llmagentos.llm.admission import Admissions
from llmagentos.llm.directory import Model
from llmagentos.llm.metering import Meter
from llmagentos.llm.replicas import Replicas


async def models(
    known: Iterable[Model], admissions: Admissions, replicas: Mapping[str, Replicas], meter: Meter
) -> list[ModelInfo]:
    """Every model, its state, and how busy it is."""
    return list(await asyncio.gather(*(model(one, admissions, replicas[one.name], meter) for one in known)))


async def model(known: Model, admissions: Admissions, replicas: Replicas, meter: Meter) -> ModelInfo:
    """One model."""
    status, found = await replicas.status()
    load, home = admissions.load(known.name), known.residence
    return ModelInfo(
        known.name,
        known.kind,
        known.use,
        status.state,
        list(known.aliases),
        known.capacity.slots,
        load.running,
        load.waiting,
        known.capacity.queue,
        status.note,
        round(meter.tokens_per_s(known.name), 2),
        _sum(replica.memory_bytes for replica in found),
        _sum(replica.device_memory_bytes for replica in found),
        known.keep_alive,
        home.since if home is not None else None,
        home.unloads_at if home is not None else found[0].unloads_at,
        found,
    )


def queues(known: Iterable[Model], admissions: Admissions, clock: Clock, most: int) -> list[ModelQueue]:
    """Of every model the calls that run, the oldest first, and those that wait, the next first."""
    age = clock.time() - clock.monotonic()
    found = []
    for model in known:
        load = admissions.load(model.name)
        running = [_running(call, age) for call in islice(admissions.running(model.name), most)]
        waiting = [_waiting(call, age) for call in islice(admissions.waiting(model.name), most)]
        slots = admissions.slots(model.name)
        found.append(ModelQueue(model.name, slots, load.running, load.waiting, running, waiting))
    return found


def export(admissions: Admissions, known: Iterable[Model]) -> None:
    """Gauges of how busy the models are."""
    for model in known:
        name = model.name
        metrics.LLM_RUNNING.labels(name).set_function(partial(_count_running, admissions, name))
        metrics.LLM_SLOTS.labels(name).set_function(partial(_count_slots, admissions, name))
        for reason in get_args(Reason):
            metrics.LLM_WAITING.labels(name, reason).set_function(partial(_count_waiting, admissions, name, reason))


def _running(running: Running, age: float) -> RunningCall:
    call = running.call
    return RunningCall(
        call.id, call.caller, _tenant(call), call.priority, running.begun + age, running.produced, call.run_id
    )


def _waiting(waiting: Waiting, age: float) -> WaitingCall:
    call, since = waiting.call, waiting.since + age
    return WaitingCall(
        call.id, call.caller, _tenant(call), call.priority, since, waiting.position, waiting.reason, call.run_id
    )


def _sum(amounts: Iterable[int | None]) -> int | None:
    """The sum of what is known; None when nothing is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _tenant(call: Submission) -> str:
    return call.tenant or call.caller


def _count_running(admissions: Admissions, model: str) -> float:
    return admissions.load(model).running


def _count_slots(admissions: Admissions, model: str) -> float:
    return admissions.slots(model)


def _count_waiting(admissions: Admissions, model: str, reason: Reason) -> float:
    return admissions.reasons(model)[reason]

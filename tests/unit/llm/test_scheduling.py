"""The gate on the scheduler: whose call goes next, and what can be said and done about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmagentos.api.llm import ChatCompletion
from llmagentos.core import metrics
from llmagentos.core.config.schema import OpenAI
from llmagentos.core.errors import DeadlineExceeded
from llmagentos.kernel.calls import QueueFull
from llmagentos.llm.asking import Standing
from llmagentos.llm.budget_calls import Hold
from llmagentos.security.identity import Identity, Kind
from support.gate import Gate, Held, ask, gate
from support.scripted import scripted_engine
from support.server import eventually

pytestmark = pytest.mark.anyio
HEAVY, LIGHT = Identity(Kind.MODULE, "heavy"), Identity(Kind.MODULE, "light")

Task = asyncio.Task[ChatCompletion]


@asynccontextmanager
async def one_slot(tmp_path: Any, *, policy: str = "fair", **more: Any) -> AsyncIterator[tuple[Gate, Held]]:
    """A gate and its engine of one slot, which a first call has taken."""
    held = Held()
    shares = more.pop("shares", None)
    async with (
        scripted_engine(held) as engine,
        gate(tmp_path, {"m": OpenAI(url=engine.url, slots=1, **more)}, policy=policy, shares=shares) as it,
    ):
        first = call(it, "first", HEAVY)
        await held.begins(1)
        yield it, held
        for task in asyncio.all_tasks():
            if task.get_name() == "call":
                task.cancel()
        await asyncio.gather(first, return_exceptions=True)


def call(it: Gate, text: str, caller: Identity, **more: Any) -> Task:
    request = ask(text, model="m", max_tokens=more.pop("max_tokens", None))
    return asyncio.create_task(it.gateway.complete(request, caller, **more), name="call")


async def queued(it: Gate, *calls: tuple[str, Identity] | tuple[str, Identity, dict[str, Any]]) -> list[Task]:
    """Let calls wait, in this order."""
    tasks = []
    for text, caller, *more in calls:
        before = it.waiting("m")
        tasks.append(call(it, text, caller, **(more[0] if more else {})))
        await eventually(lambda before=before: it.waiting("m") == before + 1)  # type: ignore[misc]
    return tasks


async def begun(held: Held, count: int) -> Sequence[str]:
    """What began after the first call, in order; everything is answered."""
    return (await held.answer_all(count + 1))[1:]


@pytest.mark.parametrize(("policy", "place"), [("fair", 0), ("vtc", 0), ("plas", 6), ("priority", 6), ("fcfs", 6)])
async def test_a_light_tenant_does_not_wait_behind_a_heavy_one(tmp_path: Any, policy: str, place: int) -> None:
    async with one_slot(tmp_path, policy=policy) as (it, held):
        await queued(it, *[(f"h{n}", HEAVY) for n in range(6)], ("light", LIGHT))
        assert (await begun(held, 7)).index("light") == place


async def test_a_run_with_little_service_goes_before_one_with_much(tmp_path: Any) -> None:
    async with one_slot(tmp_path) as (it, held):
        await held.answer()
        for run, tokens in (("long", 500), ("short", 5)):
            task = call(it, run, LIGHT, run_id=run, max_tokens=tokens)
            await held.answer()
            await task
        blocker = call(it, "blocker", HEAVY)
        await held.begins(4)
        await queued(it, ("of long", LIGHT, {"run_id": "long"}), ("of short", LIGHT, {"run_id": "short"}))
        assert (await held.answer_all(6))[4:] == ["of short", "of long"]
        await blocker


async def test_shares_weigh_tenants(tmp_path: Any) -> None:
    async with one_slot(tmp_path, shares={"module:light": 3.0}) as (it, held):
        calls = [(f"{who.subject}{n}", who) for n in range(6) for who in (HEAVY, LIGHT)]
        await queued(it, *calls)
        first = (await begun(held, 12))[:8]
        assert sum(text.startswith("light") for text in first) == 6


async def test_priorities_are_strict_and_a_run_bounds_its_calls(tmp_path: Any) -> None:
    async def look_up(run: str) -> Standing | None:
        return {"urgent": Standing("a", "urgent", -5), "batch": Standing("a", "batch", 15)}.get(run)

    async with one_slot(tmp_path) as (it, held):
        it.gateway.know_runs(look_up)
        await queued(
            it,
            ("plain", LIGHT),
            ("batch asks for realtime", LIGHT, {"run_id": "batch", "priority": -15}),
            ("urgent", LIGHT, {"run_id": "urgent"}),
            ("nicer", LIGHT, {"run_id": "urgent", "priority": 1}),
            ("realtime", HEAVY, {"priority": -15}),
        )
        order = ["realtime", "urgent", "plain", "nicer", "batch asks for realtime"]
        shown = [(w.position, w.priority, w.reason) for w in it.gateway.queues(most=10)[0].waiting]
        assert shown == [(1, -15, "slots"), (2, -5, "slots"), (3, 0, "slots"), (4, 1, "slots"), (5, 15, "slots")]
        assert await begun(held, 5) == order


async def test_calls_of_runs_use_the_share_of_who_asked(tmp_path: Any) -> None:
    async def look_up(run: str) -> Standing:
        return Standing("admin:ann" if run.startswith("a") else "admin:bob", run)

    server = Identity(Kind.MODULE, "server")
    async with one_slot(tmp_path) as (it, held):
        it.gateway.know_runs(look_up)
        calls = [(f"a{n}", server, {"run_id": f"a{n}"}) for n in range(4)]
        await queued(it, *calls, ("b", server, {"run_id": "b"}))
        queue = it.gateway.queues(most=10)[0]
        assert {(w.run_id, w.tenant, w.caller) for w in queue.waiting} >= {("b", "admin:bob", "module:server")}
        assert "b" in (await begun(held, 5))[:2]


async def test_a_call_that_waits_for_its_budget_is_reniced_too(tmp_path: Any) -> None:
    room, waits = asyncio.Event(), []

    async def look_up(run: str) -> Standing:
        return Standing("a", run, 15)

    @asynccontextmanager
    async def holding(measured: Any, asked: Any, demand: Any) -> AsyncIterator[Hold]:
        if asked.run_id is not None:
            waits.append(asked.run_id)
            await room.wait()
        yield Hold(measured.id, (), None, None, demand.most_out)

    async with one_slot(tmp_path) as (it, held):
        it.gateway.know_runs(look_up)
        it.gateway.use_budgets(holding)
        (plain,) = await queued(it, ("plain", LIGHT))
        reniced = call(it, "reniced", LIGHT, run_id="r")
        await eventually(lambda: waits)
        it.gateway.renice("r", -5)
        room.set()
        await eventually(lambda: it.waiting("m") == 2)
        assert await begun(held, 2) == ["reniced", "plain"]
        await asyncio.gather(plain, reniced)


async def test_runs_are_held_released_and_reniced(tmp_path: Any) -> None:
    async with one_slot(tmp_path) as (it, held):
        await queued(it, ("a", LIGHT, {"run_id": "ra"}), ("b", LIGHT, {"run_id": "rb"}), ("c", LIGHT, {"run_id": "rc"}))
        it.gateway.hold("ra")
        it.gateway.renice("rc", -1)
        waiting = it.gateway.waiting_runs()
        assert {run: (w.position, w.reason) for run, w in waiting.items()} == {
            "rc": (1, "slots"),
            "rb": (2, "slots"),
            "ra": (3, "held"),
        }
        assert it.gateway.explain("ra") == waiting["ra"]
        assert it.gateway.explain("none") is None
        assert await begun(held, 2) == ["c", "b"]
        await eventually(lambda: it.waiting("m") == 1)
        it.gateway.release("ra")
        assert await begun(held, 3) == ["c", "b", "a"]
        it.gateway.hold("later")
        task = call(it, "later", LIGHT, run_id="later")
        await eventually(lambda: it.waiting("m") == 1)
        it.gateway.forget("later")
        it.gateway.release("later")
        await held.answer()
        await task


async def test_a_held_call_is_dropped_at_its_deadline_and_when_its_run_is_killed(tmp_path: Any) -> None:
    async with one_slot(tmp_path) as (it, held):
        it.gateway.hold("r")
        with pytest.raises(DeadlineExceeded, match="deadline"):
            await call(it, "late", LIGHT, run_id="r", timeout=0.2)
        assert held.begun == ["first"]
        (killed,) = await queued(it, ("killed", LIGHT, {"run_id": "r"}))
        assert it.gateway.cancel_run("r") == 1
        await asyncio.gather(killed, return_exceptions=True)
        assert it.waiting("m") == 0


async def test_a_full_queue_says_when_to_come_again(tmp_path: Any) -> None:
    async with one_slot(tmp_path, queue=2) as (it, _):
        await queued(it, ("a", LIGHT), ("b", LIGHT))
        with pytest.raises(QueueFull) as full:
            await it.gateway.complete(ask(model="m"), LIGHT)
        assert 1 <= full.value.retry_after <= 60


async def test_limits_per_minute_let_calls_wait_with_that_reason(tmp_path: Any) -> None:
    async with one_slot(tmp_path, requests_per_minute=2) as (it, held):
        await queued(it, ("a", LIGHT), ("b", LIGHT))
        await held.answer()
        await held.begins(2)
        await held.answer()
        await eventually(lambda: it.gateway.queues(most=0)[0].running_count == 0)
        assert [w.reason for w in it.gateway.queues(most=9)[0].waiting] == ["rate"]
        assert held.begun == ["first", "a"]


async def test_what_runs_is_shown_with_what_it_has_produced(tmp_path: Any) -> None:
    held = Held()
    async with (
        scripted_engine(lambda r: ["one", "two", *held(r)]) as engine,
        gate(tmp_path, {"m": OpenAI(url=engine.url, slots=1)}) as it,
    ):
        task = call(it, "x", LIGHT, run_id="r")
        await eventually(lambda: (q := it.gateway.queues(most=5)[0]).running and q.running[0].tokens_out == 2)
        (running,) = it.gateway.queues(most=5)[0].running
        assert (running.run_id, running.tenant, running.priority) == ("r", "module:light", 0)
        assert it.gateway.queues(most=0)[0].running == []
        await held.answer()
        await task


async def test_gauges_tell_waiting_calls_by_reason(tmp_path: Any) -> None:
    def value(reason: str) -> float | None:
        return metrics.REGISTRY.get_sample_value("llmagentos_llm_waiting_calls", {"model": "m", "reason": reason})

    async with one_slot(tmp_path) as (it, _):
        it.gateway.hold("r")
        await queued(it, ("a", LIGHT), ("b", LIGHT, {"run_id": "r"}))
        assert [value(reason) for reason in ("slots", "held", "rate", "backoff")] == [1, 1, 0, 0]
        assert metrics.REGISTRY.get_sample_value("llmagentos_llm_slots", {"model": "m"}) == 1

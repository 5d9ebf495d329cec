"""Plays the files in `scheduling/`: what was asked of the scheduler, and the order in which calls must start.

A scenario is YAML. To add one, write a file; nothing here needs to change.

    about: one sentence
    policy: fair                      # a name, or {name: plas, levels: [...], beta: 3}
    model: {slots: 1, queue: 100}     # fields of Capacity
    calls:                            # each asks at a time, and takes `takes` seconds once it has started
      - {id: a1, at: 0, tenant: a, run: r1, in: 100, out: 10, takes: 1, priority: 0, deadline: 5}
    events:                           # optional
      - {at: 1, hold: r1}             # also release, cancel, cancel_run, forget; {at: 2, renice: r1, to: -5}
      - {at: 1, overloaded: a1, retry_after: 3}   # the call ends with 429
    starts: [a1]                      # all that start, in order
    at: {a1: 0}                       # optional: when some of them start
    dropped: []                       # optional: those whose deadline passes while they wait
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmagentos.kernel.calls import Capacity, Outcome, Submission
from llmagentos.kernel.policy import POLICIES, Policy
from llmagentos.kernel.scheduling import PolicyScheduler

FILES = sorted((Path(__file__).parent / "scheduling").glob("*.yaml"))


class Stage:
    """A scheduler with a clock that jumps from event to event."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.capacity = Capacity(**{"slots": 1, "queue": 1_000, **scenario.get("model", {})})
        self.scheduler = PolicyScheduler({"m": self.capacity}, policy(scenario["policy"]))
        self.calls = {call["id"]: call for call in scenario["calls"]}
        self.queue: list[tuple[float, int, dict[str, Any]]] = [
            (float(item["at"]), number, item)
            for number, item in enumerate([*scenario["calls"], *scenario.get("events", [])])
        ]
        heapify(self.queue)
        self.started: dict[str, float] = {}
        self.running: set[str] = set()
        self.dropped: list[str] = []

    def play(self) -> None:
        while self.queue:
            now = self.queue[0][0]
            while self.queue and self.queue[0][0] == now:
                self.happen(heappop(self.queue)[2], now)
            self.dropped += [call.id for call in self.scheduler.expire(now)]
            for admission in self.scheduler.next(now):
                call = self.calls[admission.call.id]
                self.started[call["id"]] = now
                self.running.add(call["id"])
                self.later(now + call.get("takes", 1), {"finish": call["id"]})
            if (moment := self.scheduler.next_deadline()) is not None:
                self.later(moment, {"tick": True})

    def later(self, at: float, item: dict[str, Any]) -> None:
        if not any(moment == at and queued == item for moment, _, queued in self.queue):
            heappush(self.queue, (at, len(self.queue) + 1_000 * len(self.started), item))

    def happen(self, item: dict[str, Any], now: float) -> None:
        match item:
            case {"id": _}:
                self.scheduler.submit(submission(item), now)
            case {"finish": call_id}:
                if call_id in self.running:
                    self.end(call_id, now, Outcome(*self.sizes(call_id)))
            case {"overloaded": call_id}:
                self.end(call_id, now, Outcome(overloaded=True, retry_after=item.get("retry_after")))
            case {"hold": run}:
                self.scheduler.hold(run, now)
            case {"release": run}:
                self.scheduler.release(run, now)
            case {"renice": run, "to": priority}:
                self.scheduler.renice(run, priority, now)
            case {"cancel": call_id}:
                assert self.scheduler.cancel(call_id)
            case {"cancel_run": run}:
                self.scheduler.cancel_run(run)
            case {"forget": run}:
                self.scheduler.forget(run)
            case {"tick": True}:
                return
            case _:
                raise ValueError(f"unknown event {item}")

    def end(self, call_id: str, now: float, outcome: Outcome) -> None:
        self.running.remove(call_id)
        self.scheduler.finish(call_id, now, outcome)

    def sizes(self, call_id: str) -> tuple[int, int]:
        call = self.calls[call_id]
        return call.get("in", 0), call.get("out", 0)


def policy(named: str | dict[str, Any]) -> Policy:
    if isinstance(named, str):
        return POLICIES[named]
    changed = {key: tuple(value) if isinstance(value, list) else value for key, value in named.items()}
    return replace(POLICIES[named["name"]], **changed)


def submission(call: dict[str, Any]) -> Submission:
    return Submission(
        call["id"],
        "m",
        "somebody",
        call.get("run"),
        call.get("deadline"),
        tenant=call.get("tenant"),
        share=call.get("share", 1.0),
        priority=call.get("priority", 0),
        program=call.get("program"),
        tokens_in=call.get("in", 0),
        tokens_out=call.get("expected_out", 0),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    scenario = yaml.safe_load(path.read_text("utf-8"))
    stage = Stage(scenario)
    stage.play()
    assert list(stage.started) == scenario["starts"], scenario["about"]
    assert stage.dropped == scenario.get("dropped", [])
    for call_id, moment in scenario.get("at", {}).items():
        assert stage.started[call_id] == pytest.approx(moment), call_id


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 8

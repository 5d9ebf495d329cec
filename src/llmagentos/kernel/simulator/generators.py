"""Seeded traces with published shapes.

Sizes of calls follow log-normal distributions around the means of Azure's 2023 traces (conversation:
1,155 tokens in, 211 out; code: 2,048 in, 28 out). `load` is the offered work over what the engine can
do: above 1 the queue grows as long as runs arrive.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

from llmagentos.kernel.simulator.engine import EngineModel
from llmagentos.kernel.simulator.trace import Call, Run, Step

CONVERSATION = Call(1155, 211)
CODE = Call(2048, 28)
_SIGMA = 0.8


def sized(draw: random.Random, mean: Call) -> Call:
    """A call with log-normal sizes around `mean`."""
    shift = _SIGMA * _SIGMA / 2
    tokens_in = draw.lognormvariate(math.log(mean.tokens_in) - shift, _SIGMA)
    tokens_out = draw.lognormvariate(math.log(mean.tokens_out) - shift, _SIGMA)
    return Call(max(1, min(128_000, round(tokens_in))), max(1, min(8_192, round(tokens_out))))


def mix(draw: random.Random, runs: int) -> list[Run]:
    """Four in five runs are short (1 to 4 calls), one is long (15 to 40): calls one after the other."""
    found = []
    for number in range(runs):
        long = draw.random() < 0.2
        calls = draw.randint(15, 40) if long else draw.randint(1, 4)
        steps = tuple(Step((sized(draw, CONVERSATION),)) for _ in range(calls))
        found.append(Run(f"m{number}", 0.0, f"t{draw.randrange(4)}", "long" if long else "short", steps))
    return found


def fanout(draw: random.Random, runs: int) -> list[Run]:
    """One run in four splits its work into 4 to 16 parallel calls, three times; the others make 4 short calls."""
    found = []
    for number in range(runs):
        if draw.random() < 0.25:
            width = draw.randint(4, 16)
            steps = tuple(Step(tuple(sized(draw, CONVERSATION) for _ in range(width))) for _ in range(3))
            found.append(Run(f"f{number}", 0.0, f"t{draw.randrange(4)}", "fan-out", steps))
        else:
            steps = tuple(Step((sized(draw, CODE),)) for _ in range(4))
            found.append(Run(f"f{number}", 0.0, f"t{draw.randrange(4)}", "light", steps))
    return found


def chats(draw: random.Random, runs: int) -> list[Run]:
    """Conversations of 2 to 10 turns whose context grows, with a person thinking in between."""
    found = []
    for number in range(runs):
        context, steps = 0, []
        for _ in range(draw.randint(2, 10)):
            turn = sized(draw, Call(250, 211))
            context += turn.tokens_in
            steps.append(Step((Call(context, turn.tokens_out),), round(draw.expovariate(1 / 15.0), 3)))
            context += turn.tokens_out
        found.append(Run(f"c{number}", 0.0, f"t{draw.randrange(8)}", "chat", tuple(steps)))
    return found


def tools(draw: random.Random, runs: int) -> list[Run]:
    """Loops of 3 to 20 calls, each followed by a tool of about 2 seconds, its result added to the context."""
    found = []
    for number in range(runs):
        context, steps = sized(draw, CONVERSATION).tokens_in, []
        for _ in range(draw.randint(3, 20)):
            answer = sized(draw, Call(300, 60))
            steps.append(Step((Call(context, answer.tokens_out),), round(draw.expovariate(0.5), 3)))
            context += answer.tokens_in + answer.tokens_out
        found.append(Run(f"l{number}", 0.0, f"t{draw.randrange(4)}", "loop", tuple(steps)))
    return found


def greedy(draw: random.Random, runs: int) -> list[Run]:
    """One tenant sends nine of ten runs; all are of one call."""
    return [
        Run(f"g{number}", 0.0, tenant, tenant, (Step((sized(draw, CONVERSATION),)),))
        for number in range(runs)
        for tenant in ("greedy" if draw.random() < 0.9 else "light",)
    ]


def heavy_light(_: random.Random, runs: int) -> list[Run]:
    """A quarter heavy runs (6 parallel calls of 1 s) before three quarters light ones (4 calls of 0.1 s), at once.

    The times are those of an engine that decodes 100 tokens a second.
    """
    heavy = max(1, runs // 4)
    found = [Run(f"h{n}", 0.0, "a", "heavy", (Step((Call(0, 100),) * 6),)) for n in range(heavy)]
    return found + [Run(f"l{n}", 0.0, "a", "light", (Step((Call(0, 10),)),) * 4) for n in range(runs - heavy)]


GENERATORS: dict[str, Callable[[random.Random, int], list[Run]]] = {
    "mix": mix,
    "fanout": fanout,
    "chats": chats,
    "tools": tools,
    "greedy": greedy,
    "heavy-light": heavy_light,
}
AT_ONCE = frozenset({"heavy-light"})


def generate(kind: str, *, seed: int, runs: int, load: float, engine: EngineModel) -> list[Run]:
    """A trace of `runs` runs of a kind in `GENERATORS`, arriving at random (Poisson) so that they offer `load`."""
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    found = GENERATORS[kind](draw, runs)
    if kind in AT_ONCE:
        return found
    work = sum(engine.seconds(call) for run in found for step in run.steps for call in step.calls)
    gap = work / len(found) / engine.slots / load
    at, placed = 0.0, []
    for run in found:
        at += draw.expovariate(1 / gap)
        placed.append(replace(run, at=round(at, 6)))
    return placed

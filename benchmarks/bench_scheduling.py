"""Scheduling of LLM calls, all of it simulated: what policies gain over first come, first served, and what they cost.

The engine is a model (slots with a prefill and a decode rate), the traces are generated (the kinds and
call sizes of kernel/simulator/generators.py). "oracle" knows how much work each run has left. Ratios are
to FCFS. Only the cost of a decision, at the end, is measured on this machine.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

from llmagentos.kernel.calls import Capacity, Outcome, Submission
from llmagentos.kernel.policy import POLICIES
from llmagentos.kernel.scheduling import PolicyScheduler
from llmagentos.kernel.simulator.engine import EngineModel
from llmagentos.kernel.simulator.generators import generate
from llmagentos.kernel.simulator.measures import Report, report, widest_gap
from llmagentos.kernel.simulator.replay import replay
from llmagentos.kernel.simulator.trace import Call, Run, Step

SEEDS = (1, 2, 3)
RUNS = 1_500
WAITING = 10_000


def reports(kind: str, load: float, policies: Sequence[str], engine: EngineModel) -> dict[str, list[Report]]:
    """Each policy's figures on the same traces, one a seed."""
    traces = [generate(kind, seed=seed, runs=RUNS, load=load, engine=engine) for seed in SEEDS]
    return {policy: [report(replay(trace, policy, engine)) for trace in traces] for policy in policies}


def of_kind(found: Report, kind: str) -> tuple[float, float]:
    """Mean and p99 completion of a class, in seconds."""
    group = next(group for group in found.kinds if group.name == kind)
    return group.mean, group.p99


def mixed_load() -> None:
    """Four in five runs are short: the mix of FACTS at 0.97 and 1.2 of what the engine can do."""
    engine = EngineModel()
    for load in (0.97, 1.2):
        print(f"\nmix at load {load}, {RUNS} runs on {engine.slots} slots, mean of seeds {SEEDS} (simulated)")
        found = reports("mix", load, ("fcfs", "plas", "fair", "oracle"), engine)
        base = None
        for policy, all_seeds in found.items():
            p50, slowdown, long, tail = (
                statistics.mean(values)
                for values in zip(
                    *((r.total.p50, r.total.slowdown, *of_kind(r, "long")) for r in all_seeds), strict=True
                )
            )
            base = base or (p50, slowdown, long, tail)
            print(
                f"  {policy:7s} p50 {p50:7.1f} s ({p50 / base[0]:.2f}x)  mean slowdown {slowdown:5.2f} "
                f"({slowdown / base[1]:.2f}x)  long runs: mean {long:6.0f} s ({long / base[2]:.2f}x), "
                f"p99 {tail:5.0f} s ({tail / base[3]:.2f}x)"
            )


def greedy_tenant() -> None:
    """One tenant sends nine of ten calls, at 1.3 of what the engine can do."""
    engine = EngineModel()
    trace = generate("greedy", seed=1, runs=3_000, load=1.3, engine=engine)
    print("\ngreedy tenant, 90% of the calls at load 1.3 (simulated; goal: light tenant's mean wait under 1 s)")
    for policy in ("fcfs", "fair"):
        found = report(replay(trace, policy, engine))
        waits = "  ".join(f"{tenant.name} waits {tenant.wait:6.2f} s" for tenant in found.tenants)
        print(f"  {policy:7s} {waits}  Jain {found.jain:.3f}")


def heavy_and_light() -> None:
    """4 heavy runs (6 parallel calls of 1 s) and 12 light ones (4 calls of 0.1 s) at once on 4 slots."""
    engine = EngineModel(slots=4, prefill=1e9, decode=100)
    trace = generate("heavy-light", seed=1, runs=16, load=1, engine=engine)
    print("\n4 heavy and 12 light runs on 4 slots (simulated; goal: light at most 0.4x, makespan at most 1.1x of FCFS)")
    base = report(replay(trace, "fcfs", engine))
    for policy in ("fcfs", "plas", "fair", "oracle"):
        found = report(replay(trace, policy, engine))
        light, heavy = of_kind(found, "light")[0], of_kind(found, "heavy")[0]
        print(
            f"  {policy:7s} light {light:.2f} s ({light / of_kind(base, 'light')[0]:.2f}x)  heavy {heavy:.2f} s  "
            f"makespan {found.makespan:.1f} s ({found.makespan / base.makespan:.2f}x)"
        )


def service_gap() -> None:
    """Two tenants with calls always waiting, of very different size and number: the bound of VTC."""
    engine = EngineModel(slots=8)
    sizes = {"greedy": (Call(1_500, 300), 1_600), "light": (Call(200, 40), 2_400)}
    trace = [
        Run(f"{tenant}{n}", 0.0, tenant, tenant, (Step((call,)),))
        for tenant, (call, many) in sizes.items()
        for n in range(many)
    ]
    bound = 2 * max(1_500, 2 * engine.slots * (1_500 + 300))
    print("\ntwo tenants with calls always waiting: largest difference of service in weighted tokens (simulated)")
    for policy in ("fcfs", "fair"):
        found = replay(trace, policy, engine)
        both_wait = min(max(c.begun for c in found.calls if c.run.tenant == tenant) for tenant in sizes)
        gap = widest_gap(found, "greedy", "light", until=both_wait)
        print(f"  {policy:7s} {gap:12,.0f}  ({gap / bound:.2f} of VTC's bound {bound:,})")


def decision_cost() -> None:
    """CPU of submit, next, produced and finish for one call, while 10,000 wait."""
    print(f"\ncost of the decisions on one call with {WAITING:,} waiting, 50 tenants, 2,000 runs (goal: under 50 us)")
    for name in ("fcfs", "plas", "fair"):
        draw = random.Random(1)
        scheduler = PolicyScheduler({"m": Capacity(16, 2 * WAITING)}, POLICIES[name])

        def call(number: int, draw: random.Random = draw) -> Submission:
            run, tenant = f"r{draw.randrange(2_000)}", f"t{draw.randrange(50)}"
            priority = draw.choice((0, 15))
            return Submission(
                str(number), "m", "me", run, 1e9, tenant=tenant, priority=priority, tokens_in=draw.randrange(2_000)
            )

        for number in range(WAITING + 16):
            scheduler.submit(call(number), 0.0)
        running = [admission.call.id for admission in scheduler.next(0.0)]
        outcome = Outcome(1_000, 200)
        chunks, now = [], 0.0
        for chunk in range(20):
            coming = [call(100_000 * (chunk + 1) + number) for number in range(500)]
            begun = time.process_time()
            for submission in coming:
                now += 0.01
                scheduler.submit(submission, now)
                ended = running.pop(submission.tokens_in % len(running))
                scheduler.produced(ended, 100)
                scheduler.finish(ended, now, outcome)
                scheduler.expire(now)
                running += [admission.call.id for admission in scheduler.next(now)]
            chunks.append((time.process_time() - begun) / len(coming) * 1e6)
        print(f"  {name:7s} median {statistics.median(chunks):5.1f} us, best {min(chunks):5.1f} us")


def main() -> None:
    """Print all of it."""
    heavy_and_light()
    greedy_tenant()
    service_gap()
    mixed_load()
    decision_cost()


if __name__ == "__main__":
    main()

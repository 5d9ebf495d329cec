"""What a replay is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llmagentos.kernel.simulator.replay import CallRecord, Replay, RunRecord

_NameOf = Callable[[RunRecord | CallRecord], str]


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one class, or of one tenant. Times in seconds; `slowdown` is the mean over runs."""

    name: str
    runs: int
    mean: float
    p50: float
    p99: float
    slowdown: float
    wait: float
    """Mean time that a call waited for its slot."""


@dataclass(frozen=True, slots=True)
class Report:
    """A policy's figures for a trace."""

    policy: str
    makespan: float
    tokens_per_s: float
    jain: float
    """Jain's index (Jain et al., 1984) of what tenants were served over their max-min fair share of it,
    as long as runs arrived: 1 when each had its share."""
    total: Group
    kinds: tuple[Group, ...]
    tenants: tuple[Group, ...]


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which a share `q` lies (nearest rank); 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def mean(values: Iterable[float]) -> float:
    """The mean; 0 of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index of positive values: 1/n (one has all) to 1 (all have the same)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def report(found: Replay) -> Report:
    """The figures of a replay."""
    start = min((record.run.at for record in found.runs), default=0.0)
    makespan = max((record.ended for record in found.runs), default=0.0) - start
    tenants = _groups(found, lambda record: record.run.tenant)
    return Report(
        found.policy,
        makespan,
        sum(record.tokens for record in found.calls) / makespan if makespan else 0.0,
        jain(_satisfaction(found)),
        _group("all", found.runs, found.calls),
        _groups(found, lambda record: record.run.kind),
        tenants,
    )


def max_min(demands: Sequence[float], capacity: float) -> list[float]:
    """The max-min fair shares of `capacity`: no one gets more than it wants, what is left is split evenly."""
    shares = [0.0] * len(demands)
    left = capacity
    for place, index in enumerate(sorted(range(len(demands)), key=lambda i: demands[i])):
        shares[index] = min(demands[index], left / (len(demands) - place))
        left -= shares[index]
    return shares


def widest_gap(found: Replay, one: str, other: str, *, until: float) -> float:
    """The largest difference of service, in weighted tokens, between two tenants over any interval before `until`."""
    differences = [served.get(one, 0.0) - served.get(other, 0.0) for at, served in found.service if at <= until]
    return max(differences, default=0.0) - min(differences, default=0.0)


def _satisfaction(found: Replay) -> list[float]:
    demands: dict[str, float] = {}
    last_ends: dict[str, float] = {}
    for record in found.runs:
        tenant = record.run.tenant
        asked = sum(call.tokens_in + 2 * call.tokens_out for step in record.run.steps for call in step.calls)
        demands[tenant] = demands.get(tenant, 0.0) + asked
        last_ends[tenant] = max(last_ends.get(tenant, 0.0), record.ended)
    arrivals = {record.run.at for record in found.runs}
    until = max(arrivals) if len(arrivals) > 1 else min(last_ends.values(), default=0.0)
    served: dict[str, float] = next((served for at, served in reversed(found.service) if at <= until), {})
    shares = max_min(list(demands.values()), sum(served.values()))
    return [served.get(tenant, 0.0) / share if share else 1.0 for tenant, share in zip(demands, shares, strict=True)]


def _groups(found: Replay, name_of: _NameOf) -> tuple[Group, ...]:
    runs: dict[str, list[RunRecord]] = {}
    calls: dict[str, list[CallRecord]] = {}
    for run in found.runs:
        runs.setdefault(name_of(run), []).append(run)
    for call in found.calls:
        calls.setdefault(name_of(call), []).append(call)
    return tuple(_group(name, runs[name], calls[name]) for name in sorted(runs))


def _group(name: str, runs: Sequence[RunRecord], calls: Sequence[CallRecord]) -> Group:
    times = [run.completion for run in runs]
    return Group(
        name,
        len(runs),
        mean(times),
        quantile(times, 0.5),
        quantile(times, 0.99),
        mean(run.slowdown for run in runs),
        mean(call.begun - call.submitted for call in calls),
    )

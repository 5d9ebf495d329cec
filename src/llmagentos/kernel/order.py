"""In which order the calls of a queue would start: what `ps` shows as a position.

The policy is played forward on copies of its numbers, each call charged with its expected size. What
really happens depends on what arrives and how long answers get.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace

from llmagentos.kernel.fairness import VirtualTokens
from llmagentos.kernel.policy import Policy
from llmagentos.kernel.programs import Entry, ProgramQueue


def in_order(tenants: VirtualTokens[ProgramQueue], policy: Policy, typical_out: float) -> Iterator[Entry]:
    """The waiting calls of one priority, the next first; O(n log n) for all of them."""
    counters = [
        (tenant.counter, tenant.turn, tenant.name, _of_tenant(tenant.queue, policy, typical_out))
        for tenant in tenants.waiting()
    ]
    heapify(counters)
    while counters:
        counter, turn, name, calls = counters[0]
        entry = next(calls, None)
        if entry is None:
            heappop(counters)
            continue
        yield entry
        heapreplace(counters, (counter + _size(entry, policy, typical_out) / entry.call.share, turn, name, calls))


def _of_tenant(queue: ProgramQueue, policy: Policy, typical_out: float) -> Iterator[Entry]:
    programs = []
    for calls in queue.calls.values():
        entries = iter(calls.values())
        head = next(entries)
        attained = head.path if policy.programs == "atlas" else head.program.attained
        attained -= head.program.forgiven
        programs.append((policy.level(attained), head.program.running, head.number, attained, head, entries))
    heapify(programs)
    while programs:
        _, running, _, attained, head, entries = programs[0]
        yield head
        if policy.programs == "plas":
            attained += _size(head, policy, typical_out)
        following = next(entries, None)
        if following is None:
            heappop(programs)
        else:
            level = policy.level(attained)
            heapreplace(programs, (level, running + 1, following.number, attained, following, entries))


def _size(entry: Entry, policy: Policy, typical_out: float) -> float:
    expected_in = max(1, entry.call.tokens_in) if entry.charged_in is None else 0
    expected_out = entry.call.tokens_out or typical_out
    return policy.weight_in * expected_in + policy.weight_out * expected_out

"""What is told of jobs: the whole of its nodes and batches, and rows as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from llmagentos.api.job_control import Batch
from llmagentos.api.jobs import HostState, Job, JobHost, JobSummary
from llmagentos.fleet.job_states import ENDS, exit_code, overall
from llmagentos.kernel.rollout import ENDS as BATCH_ENDS
from llmagentos.storage.job_changes import Conclusion, Seen, masked
from llmagentos.storage.job_tables import ENDED, HostRow, JobRow

FAILED = 2


def conclude(row: JobRow, states: Collection[HostState], batches: Sequence[Batch]) -> Conclusion:
    """The job's state from those that its nodes are in, its batches and its approval."""
    state = overall(states)
    if row.approval is not None and row.approval.state == "waiting" and state not in ENDED:
        return Conclusion("waiting_approval")
    if state not in ENDED:
        return Conclusion(state)
    if any(batch.state not in BATCH_ENDS for batch in batches):
        return Conclusion("running")
    if any(batch.state == "failed" for batch in batches):
        return Conclusion("failed", max(FAILED, exit_code(states) or 0))
    return Conclusion(state, exit_code(states))


def summary(row: JobRow, hosts: list[HostRow]) -> JobSummary:
    """A job in a list."""
    return JobSummary(
        id=row.id,
        name=row.name,
        state=row.state,
        created=row.created,
        created_by=row.created_by,
        nodes=[host.node for host in hosts],
        modes=[mode for mode in ("check", "diff") if getattr(row.spec, mode)],
        started=row.started,
        ended=row.ended,
        exit_code=row.exit_code,
        priority=row.spec.priority,
        waiting_for=row.waiting,
        origin=row.origin,
    )


def whole(seen: Seen, ahead: Mapping[str, int], away: Callable[[str], bool]) -> Job:
    """One job in full; `ahead` counts the jobs before it by node."""
    row, hosts = seen.row, seen.hosts
    waiting = [host.node for host in hosts if host.state not in ENDS and away(host.node)]
    shown = [_host(host, ahead.get(host.node, 0)) for host in hosts]
    batches = [_batch(batch, hosts) for batch in seen.batches]
    return Job(summary(row, hosts), masked(row.spec), shown, waiting, batches, row.approval, row.message)


def _host(host: HostRow, ahead: int) -> JobHost:
    return JobHost(
        host.node,
        host.state,
        ahead,
        host.started,
        host.ended,
        host.exit_code,
        host.recap,
        host.message,
        host.attempt,
        host.batch,
        host.not_before,
    )


def _batch(batch: Batch, hosts: list[HostRow]) -> Batch:
    return msgspec.structs.replace(batch, nodes=[host.node for host in hosts if host.batch == batch.number])

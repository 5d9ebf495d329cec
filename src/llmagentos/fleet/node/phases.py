"""What has become of a job on this node: told from what is on its disk, so that it survives any crash.

    new ──────► running ──────► ended ──────► reported
     │             │ the runner died           ▲
     │             ▼                           │
     │          orphaned ──► interrupted ──────┤
     └── refused (bad bundle, cancelled) ──────┘

A job is begun only in `new`, where nothing of it has ever run. The runner holds a lock on the job's
directory, which its own workers inherit: the kernel drops it with the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """Where a job stands, and what the node does next."""

    NEW = "fetch the bundle and start the runner"
    RUNNING = "send events, keep the lease"
    ORPHANED = "end what the dead runner left behind"
    ENDED = "send the rest and report the end"
    INTERRUPTED = "report that nobody knows how far it came"
    REPORTED = "nothing; the directory is kept for a while"


@dataclass(frozen=True, slots=True)
class Traces:
    """What a job has left on disk."""

    reported: bool = False  # the server has its end
    exited: bool = False  # exit.json, or the end of a job that never began
    locked: bool = False  # some process of the run is alive
    runner_dead: bool = False  # the runner wrote its process id, and that process is gone
    begun: bool = False  # the runner came to do something


# The first row that matches counts; None stands for either.
TABLE: tuple[tuple[tuple[bool | None, bool | None, bool | None, bool | None, bool | None], Phase], ...] = (
    # reported exited locked runner_dead begun
    ((True, None, None, None, None), Phase.REPORTED),
    ((False, True, None, None, None), Phase.ENDED),
    ((False, False, True, False, None), Phase.RUNNING),
    ((False, False, True, True, None), Phase.ORPHANED),
    ((False, False, False, None, True), Phase.INTERRUPTED),
    ((False, False, False, None, False), Phase.NEW),
)


def phase(traces: Traces) -> Phase:
    """The phase that the traces show."""
    seen = (traces.reported, traces.exited, traces.locked, traces.runner_dead, traces.begun)
    for row, found in TABLE:
        if all(want is None or want == has for want, has in zip(row, seen, strict=True)):
            return found
    raise AssertionError(f"no row of the table matches {traces}")

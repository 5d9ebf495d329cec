"""What happens inside of a job on its nodes: plays, tasks, results, lines; as nodes send it and readers get it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Status = Literal["ok", "changed", "failed", "skipped", "unreachable", "ignored"]


class Stats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ansible's recap of one host: how many tasks ended how."""

    ok: int = 0
    changed: int = 0
    unreachable: int = 0
    failed: int = 0
    skipped: int = 0
    rescued: int = 0
    ignored: int = 0


class _Event(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    seq: Annotated[int, Meta(ge=1)]
    at: float


class PlayStarted(_Event, frozen=True, tag="play_started", kw_only=True):
    """`PLAY [name]`."""

    name: str


class TaskStarted(_Event, frozen=True, tag="task_started", kw_only=True):
    """`TASK [name]`, or `RUNNING HANDLER [name]`."""

    name: str
    action: str = ""
    handler: bool = False


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change that `--diff` shows: two texts, or one that was prepared by the task module."""

    before: str = ""
    after: str = ""
    before_header: str = ""
    after_header: str = ""
    prepared: str = ""


class TaskResult(_Event, frozen=True, tag="task_result", kw_only=True):
    """What a task came to on one host, or one item of its loop."""

    host: str
    task: str
    action: str = ""
    status: Status
    item: Any = None
    """The loop's item (label) when this is the result of one; the loop's own result has none."""
    is_item: bool = False
    result: dict[str, Any] = {}
    """As the task module returned it, within `api.bounded.MAX_RESULT_BYTES`, without what `no_log` hides."""
    diff: list[Difference] = []
    duration_s: float | None = None
    delegated_to: str | None = None


class LogLine(_Event, frozen=True, tag="log", kw_only=True):
    """A line that is no result: a warning, a deprecation, an include, an error of the runner."""

    level: Literal["info", "warning", "deprecated", "error"] = "info"
    text: str


class Recap(_Event, frozen=True, tag="recap", kw_only=True):
    """`PLAY RECAP`."""

    hosts: dict[str, Stats]


JobEvent = PlayStarted | TaskStarted | TaskResult | LogLine | Recap


class JobRecord(msgspec.Struct, frozen=True):
    """An event as readers get it. `id` counts within the job, over all its nodes."""

    id: int
    node: str
    event: JobEvent

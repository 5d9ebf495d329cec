"""Following a job in a terminal until it ends, through restarts of the server; Ctrl-C leaves it running."""

from __future__ import annotations

import asyncio
import sys
from typing import Protocol

import click
import msgspec

from llmagentos.api import jobs as api
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job, JobRecord
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.job_output import Printer, recap
from llmagentos.cli.output import emit, emit_json, note
from llmagentos.core.errors import Conflict, Unavailable
from llmagentos.core.i18n import tr

PATIENCE_S = 60.0
"""How long a server that went away may take to come back."""
INTERRUPTED = 130
_ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Telling(Protocol):
    """How a job is told: each event as it comes, and its end."""

    def show(self, record: JobRecord) -> None:
        """One event."""
        ...

    def end(self, job: Job) -> None:
        """It has ended."""
        ...


class Lines:
    """Events as JSON, one a line, and the job as the last one."""

    def show(self, record: JobRecord) -> None:
        """One event."""
        emit(msgspec.json.encode(record).decode())

    def end(self, job: Job) -> None:
        """The job."""
        emit(msgspec.json.encode({"job": job}).decode())


class Document:
    """The job and its events as one JSON document, at the end."""

    def __init__(self) -> None:
        self._records: list[JobRecord] = []

    def show(self, record: JobRecord) -> None:
        """Keep it."""
        self._records.append(record)

    def end(self, job: Job) -> None:
        """Print all."""
        emit_json({"job": job, "events": self._records})


class Text:
    """As ansible-playbook does, with its recap."""

    def __init__(self, *, hosts: int, verbosity: int) -> None:
        self._printer = Printer(hosts=hosts, verbosity=verbosity)

    def show(self, record: JobRecord) -> None:
        """Print it."""
        self._printer.show(record)

    def end(self, job: Job) -> None:
        """The recap."""
        recap(job.hosts, self._printer.recaps)
        for host in job.hosts:
            if host.message and host.recap is not None:  # without a recap its line has said it
                note(f"{host.node}: {host.message}")


async def follow(client: ApiClient, job: int, telling: Telling) -> Job:
    """Tell what comes until the job ends; then it. Raises `Unavailable` when the server stays away."""
    notices = _Notices(job)
    after = 0
    loop = asyncio.get_running_loop()
    away_since: float | None = None
    while True:
        try:
            async with api.follow(client, job, after=after) as items:
                async for item in items:
                    away_since = None
                    if isinstance(item, JobRecord):
                        after = item.id
                        telling.show(item)
                        continue
                    notices.show(item)
                    if item.summary.state in _ENDED:
                        return item
        except Unavailable as error:
            if away_since is None:
                away_since = loop.time()
                note(tr("the server is away: waiting for it; the job goes on"))
            elif loop.time() - away_since > PATIENCE_S:
                raise Unavailable(
                    error.message, hint=tr("the job goes on without it: `llmctl job logs {job} -f` later", job=job)
                ) from None
        await asyncio.sleep(0.5)


class _Notices:
    """Says, once, what a node waits for."""

    def __init__(self, job: int) -> None:
        self._job = job
        self._away: set[str] = set()
        self._ahead: set[str] = set()

    def show(self, job: Job) -> None:
        """What is new in `job`."""
        for name in job.waiting:
            if name not in self._away:
                note(tr("node {name} is away: it gets the job when it is back", name=name))
        for name in self._away - set(job.waiting):
            note(tr("node {name} is back", name=name))
        if new := set(job.waiting) - self._away:
            note(tr("`llmctl job cancel {job}` stops waiting for {names}", job=self._job, names=", ".join(sorted(new))))
        self._away = set(job.waiting)
        for host in job.hosts:
            if host.ahead and host.node not in self._ahead:
                self._ahead.add(host.node)
                note(tr("waits on {node}; jobs before it: {count}", node=host.node, count=host.ahead))


def watch(job: int, telling: Telling, *, offer_cancel: bool) -> int:
    """Follow `job` to its end and tell it; the exit code, ansible-playbook's.

    After Ctrl-C the job goes on, unless `offer_cancel` and the user wants it cancelled.
    """
    try:
        ended = execute(_watch(job, telling))
    except KeyboardInterrupt:
        _interrupted(job, offer_cancel)
        return INTERRUPTED
    telling.end(ended)
    return ended.summary.exit_code or 0


async def _watch(job: int, telling: Telling) -> Job:
    async with connected() as client:
        return await follow(client, job, telling)


def _interrupted(job: int, offer_cancel: bool) -> None:
    note("")
    wanted = False
    if offer_cancel and sys.stdin.isatty():
        try:
            wanted = click.confirm(tr("Cancel job {job}?", job=job), default=False, err=True)
        except (click.Abort, KeyboardInterrupt):
            note("")
    if wanted and execute(cancel(job)) is not None:
        note(tr("job {job} is being cancelled", job=job))
    else:
        note(tr("job {job} goes on. `llmctl job logs {job} -f` follows it, `llmctl job cancel {job}` ends it", job=job))


async def cancel(job: int) -> Job | None:
    """Cancel; None when it had ended by itself."""
    async with connected() as client:
        try:
            return await api.cancel(client, job)
        except Conflict:
            return None

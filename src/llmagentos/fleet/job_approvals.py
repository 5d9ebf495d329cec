"""Jobs that wait for somebody's word before they begin: who may say it, and what happens when nobody does in time.

Who submitted a job does not approve it: a second person looks. A job whose `approvers` name its submitter says
otherwise on purpose, and so does `approvals.own_jobs`. Anybody who may answer may deny.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from llmagentos.api.approvals import Approval as Asked
from llmagentos.api.approvals import job_approval
from llmagentos.api.job_control import Approval
from llmagentos.api.jobs import Job
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, Forbidden
from llmagentos.core.events import Hub
from llmagentos.fleet.job_gates import cancel
from llmagentos.fleet.job_states import WrongState
from llmagentos.fleet.job_writer import JobWriter
from llmagentos.storage.job_changes import Changes, Seen, masked
from llmagentos.storage.job_tables import ENDED, JobRow, to_json
from llmagentos.storage.jobs import JobRecords

EXPIRED = "nobody"
"""As whom jobs are given up that nobody approved."""
SWEEP_S = 1.0
PACE_S = 0.2
TOPIC = "approvals"
"""The hub's topic, as for tool calls: what waits has changed."""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """A job that nobody approved is given up after `timeout_s` seconds; `own`: who submitted it may approve it."""

    timeout_s: float = 7 * 86_400.0
    own: bool = False


class JobApprovals:
    """The jobs that wait; `writer` changes them."""

    def __init__(self, records: JobRecords, writer: JobWriter, hub: Hub, clock: Clock, rules: Rules) -> None:
        self._records = records
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._rules = rules
        self._open: list[Asked] = []

    def known(self) -> list[Asked]:
        """The jobs that wait, as they were at the last look."""
        return list(self._open)

    async def listing(self) -> list[Asked]:
        """The jobs that wait, the oldest first."""
        found = [self._asked(row) for row in await self._records.unapproved()]
        if found != self._open:
            self._open = found
            self._hub.publish(TOPIC, None)
        return found

    async def find(self, job: int) -> Asked | None:
        """What is, or was, asked about a job; None when there is no such job."""
        row = await self._records.find(job)
        return self._asked(row) if row is not None else None

    def _asked(self, row: JobRow) -> Asked:
        return Asked(
            id=job_approval(row.id),
            run="",
            agent="",
            call_id="",
            tool=row.spec.playbook,
            arguments=masked(row.spec).extra_vars,
            request=row.spec.limit or "",
            requested_by=row.created_by,
            asked=row.created,
            expires=row.created + self._rules.timeout_s,
            notified=row.approval is not None and row.approval.notified,
            kind="job",
            job=row.id,
            approvers=row.spec.approvers,
        )

    async def decide(self, job: int, by: str, *, approved: bool, reason: str | None = None) -> Job:
        """Approve a job or deny it: the first word counts.

        Raises `Conflict` when there is nothing to decide any more, `Forbidden` when it is not for `by` to say.
        """
        reason = reason.replace("\0", "") if reason else None  # PostgreSQL's text holds none
        because = f": {reason}" if reason else ""

        def say(seen: Seen) -> Changes:
            self._require_open(seen)
            self._require_may(seen.row, by, approved=approved)
            said = Approval("approved" if approved else "denied", by, self._clock.time(), reason)
            if approved:
                return Changes(job={"approval": to_json(said), "waiting": None})
            return self._given_up(seen, said, f"denied by {by}{because}")

        decided = await self._writer.change(job, by, say)
        with log.bind(job_id=str(job)):
            _log.info("job approved" if approved else "job denied", by=by)
        await self.listing()
        return decided

    async def noted(self, job: int) -> None:
        """The webhook took notice. Raises `Conflict` when the job does not wait any more."""

        def note(seen: Seen) -> Changes:
            asked = self._require_open(seen)
            return Changes(job={"approval": to_json(msgspec.structs.replace(asked, notified=True))})

        await self._writer.change(job, "webhook", note)
        await self.listing()

    async def serve(self) -> None:
        """Know what waits, and give up what nobody approved in time, for ever."""
        with self._hub.subscribe("jobs") as news:
            while True:
                try:
                    for each in await self.listing():
                        if each.expires <= self._clock.time() and each.job is not None:
                            await self._expire(each.job)
                except Exception as error:  # a supervising loop: a database that is away must not end it
                    _log.warning("looking after approvals of jobs failed", error=str(error))
                await asyncio.sleep(PACE_S)
                try:
                    await news.next(SWEEP_S)
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    return

    async def _expire(self, job: int) -> None:
        def give_up(seen: Seen) -> Changes:
            self._require_open(seen)
            told = f"nobody approved it within {self._rules.timeout_s:.6g} s"
            return self._given_up(seen, Approval("expired", EXPIRED, self._clock.time(), told), told)

        try:
            await self._writer.change(job, EXPIRED, give_up)
        except Conflict as error:  # answered just now
            _log.debug("not expired", job_id=str(job), reason=error.message)
            return
        _log.info("job expired: nobody approved it", job_id=str(job))
        await self.listing()

    def _given_up(self, seen: Seen, said: Approval, message: str) -> Changes:
        changes = cancel(seen, self._writer.entering, message)
        changes.job = {"approval": to_json(said), "waiting": None, "message": message}
        return changes

    def _require_open(self, seen: Seen) -> Approval:
        job, asked = seen.row.id, seen.row.approval
        if asked is None:
            raise WrongState(f"job {job} needs no approval")
        if asked.state != "waiting":
            raise WrongState(f"job {job} was {asked.state} by {asked.by} before", by=asked.by)
        if seen.row.state in ENDED:
            raise WrongState(f"job {job} has ended: {seen.row.state}")
        return asked

    def _require_may(self, row: JobRow, by: str, *, approved: bool) -> None:
        approvers = row.spec.approvers
        if approvers and not named(by, approvers):
            raise Forbidden(f"{by} may not approve job {row.id}", hint=f"these may: {', '.join(approvers)}", job=row.id)
        if approved and not approvers and by == row.created_by and not self._rules.own:
            raise Forbidden(
                f"{by} submitted job {row.id}: somebody else has to approve it",
                hint="`--approver` names who may, also oneself; `approvals: {own_jobs: true}` allows it for all jobs",
                job=row.id,
            )


def named(by: str, names: Sequence[str]) -> bool:
    """Whether the identity `by` is among `names`, which are `kind:name` or `kind:*`."""
    kind = by.partition(":")[0]
    return by in names or f"{kind}:*" in names

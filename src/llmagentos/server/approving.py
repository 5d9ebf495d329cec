"""What waits for a person, of both kinds: tool calls of runs, and jobs."""

from __future__ import annotations

from llmagentos.agents.approvals import Approvals
from llmagentos.api.approvals import Answered, Approval, job_of
from llmagentos.core.errors import Forbidden, NotFound
from llmagentos.fleet.job_approvals import JobApprovals
from llmagentos.security.identity import Identity, Permission


class Approving:
    """One list, and one way to answer."""

    def __init__(self, calls: Approvals, jobs: JobApprovals) -> None:
        self._calls = calls
        self._jobs = jobs

    def known(self) -> list[Approval]:
        """What waits, the oldest first; jobs as they were a moment ago."""
        return _sorted([*self._calls.listing(), *self._jobs.known()])

    async def listing(self) -> list[Approval]:
        """What waits now, the oldest first."""
        return _sorted([*self._calls.listing(), *await self._jobs.listing()])

    async def approve(self, approval: str, identity: Identity, reason: str | None) -> Answered:
        """Let the call be made, or the job begin. Raises `NotFound`, `Conflict` or `Forbidden`."""
        return await self._answer(approval, identity, approved=True, reason=reason)

    async def deny(self, approval: str, identity: Identity, reason: str | None) -> Answered:
        """Have the call not be made, or the job not begin. Raises as `approve`."""
        return await self._answer(approval, identity, approved=False, reason=reason)

    async def _answer(self, approval: str, identity: Identity, *, approved: bool, reason: str | None) -> Answered:
        job = job_of(approval)
        if job is None:
            act = self._calls.approve if approved else self._calls.deny
            return await act(approval, by=str(identity), reason=reason)
        if not identity.may(Permission.JOBS_APPROVE):
            raise Forbidden(f"{identity} may not do this: it needs the permission {Permission.JOBS_APPROVE.value}")
        asked = await self._jobs.find(job)
        if asked is None:
            raise NotFound(f"there is no job {job}", hint="`llmctl approvals` lists what waits")
        await self._jobs.decide(job, str(identity), approved=approved, reason=reason)
        return Answered(asked, approved, str(identity), reason)


def _sorted(found: list[Approval]) -> list[Approval]:
    return sorted(found, key=lambda each: (each.asked, each.id))

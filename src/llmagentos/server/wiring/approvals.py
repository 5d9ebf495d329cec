"""Tool calls and jobs that wait for a person, and who is told of them."""

from __future__ import annotations

from urllib.parse import urlsplit

from llmagentos.agents.approvals import Approvals
from llmagentos.agents.ledger import Ledger
from llmagentos.agents.notices import Notices
from llmagentos.api.approvals import Approval
from llmagentos.api.http import HttpClient
from llmagentos.api.runs import ApprovalNotified
from llmagentos.core.config.guards import Webhook
from llmagentos.fleet.job_approvals import JobApprovals
from llmagentos.server.approving import Approving
from llmagentos.server.routes import approvals as routes
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.runs import RunRecords


def wire(base: Foundation, parts: Parts, ledger: Ledger) -> Approvals:
    """`ledger` tells of calls that wait."""
    settings = base.config.approvals
    unended = RunRecords(base.database, base.clock).unended
    approvals = Approvals(ledger, unended, base.hub, base.clock, timeout_s=settings.timeout_s)
    parts.start.append(approvals.begin)
    parts.background.append(approvals.expire)
    return approvals


def connect(base: Foundation, parts: Parts, calls: Approvals, ledger: Ledger, jobs: JobApprovals) -> Approving:
    """One list of calls and jobs, and one webhook for both."""
    both = Approving(calls, jobs)
    parts.endpoints += routes.endpoints(both)
    parts.background.append(jobs.serve)
    webhook = base.config.approvals.webhook

    async def note(approval: Approval, attempts: int) -> None:
        if approval.job is not None:
            await jobs.noted(approval.job)
        else:
            await ledger.note(approval.run, ApprovalNotified(approval.call_id, attempts))

    if webhook is not None:
        hook = _Hook(webhook)
        url = base.config.server.url
        notices = Notices(both.known, note, hook.post, base.clock, url=url, attempts=webhook.attempts)
        parts.background.append(notices.serve)
        parts.close.append(hook.aclose)
    return both


class _Hook:
    """The webhook of the configuration."""

    def __init__(self, settings: Webhook) -> None:
        self._settings = settings
        parts = urlsplit(settings.url)
        self._origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._http = HttpClient(max_body=1024 * 1024)

    async def post(self, body: bytes, key: str) -> int:
        """Tell it; its HTTP status."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.read()}"
        timeout = self._settings.timeout_s
        found = await self._http.request("POST", self._origin, self._path, headers=headers, body=body, timeout=timeout)
        return found.status

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

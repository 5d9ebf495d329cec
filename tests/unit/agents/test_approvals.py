"""Calls that wait for a person, on a real database: found after a restart, answered once, told to the webhook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from llmagentos.agents import notices
from llmagentos.agents.approvals import AlreadyAnswered, Approvals
from llmagentos.agents.notices import Notice, Notices
from llmagentos.agents.states import RunEnded, RunPaused
from llmagentos.api.approvals import Approval
from llmagentos.api.runs import ApprovalRequested, Approved, Denied, RunState, ToolCalled
from llmagentos.core.clock import SystemClock
from llmagentos.core.errors import Forbidden, InvalidInput, NotFound, Unavailable
from llmagentos.core.events import Hub
from support.house import House, house


async def asked(it: House, *calls: str) -> str:
    """A run whose calls wait."""
    run = await it.ask()
    claim = await it.taken()
    data = [ApprovalRequested(call, "pay", {"amount": 5}) for call in calls]
    await it.ledger.append(run, claim.fence, claim.events[-1].seq, data)
    return run


def approvals_of(it: House, *, timeout_s: float = 60.0) -> Approvals:
    return Approvals(it.ledger, it.records.unended, Hub(), it.clock, timeout_s=timeout_s)


def run_in(tmp_path: Path, test: Callable[[House], object]) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            await test(it)  # type: ignore[misc]

    asyncio.run(main())


def test_a_restart_finds_what_waits_and_nobody_holds_it(tmp_path: Path) -> None:
    async def test(it: House) -> None:
        run = await asked(it, "call-1", "call-2")
        row = await it.records.row(run)
        assert row is not None
        assert (row.state, row.holder) == (RunState.WAITING, "")
        it.again()
        known = approvals_of(it)
        await it.ledger.begin()
        await known.begin()
        assert [each.id for each in known.listing()] == [f"{run}.call-1", f"{run}.call-2"]
        with pytest.raises(InvalidInput, match="several calls"):
            await known.approve(run, by="admin:me")
        await known.deny(f"{run}.call-2", by="admin:me", reason="no")
        assert await it.ledger.claim("server", "server/2", wait=0) is None
        answered = await known.approve(run, by="operator:ada")
        assert (answered.approval.call_id, known.listing()) == ("call-1", [])
        with pytest.raises(AlreadyAnswered, match="already approved by operator:ada"):
            await known.deny(f"{run}.call-1", by="admin:me")
        claim = await it.ledger.claim("server", "server/2", wait=0)
        assert claim is not None
        assert claim.run == run

    run_in(tmp_path, test)


def test_what_cannot_be_answered_says_why(tmp_path: Path) -> None:
    async def test(it: House) -> None:
        known = approvals_of(it)
        with pytest.raises(NotFound):
            await known.approve("nothing", by="admin:me")
        run = await asked(it, "call-1")
        with pytest.raises(NotFound, match="no call of the run"):
            await known.approve(f"{run}.call-9", by="admin:me")
        await it.control.pause(run, by="admin:me")
        with pytest.raises(RunPaused):
            await known.approve(run, by="admin:me")
        await it.control.resume(run, by="admin:me")
        assert len(known.listing()) == 1
        await it.control.kill(run, by="admin:me")
        assert known.listing() == []
        with pytest.raises(RunEnded):
            await known.approve(f"{run}.call-1", by="admin:me")

    run_in(tmp_path, test)


def test_only_one_of_many_answers_counts(tmp_path: Path) -> None:
    async def test(it: House) -> None:
        known = approvals_of(it)
        run = await asked(it, "call-1")
        tries = [known.approve(run, by=f"admin:{n}") if n % 2 else known.deny(run, by=f"admin:{n}") for n in range(8)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(not isinstance(each, BaseException) for each in found) == 1
        assert sum(isinstance(each, AlreadyAnswered) for each in found) == 7

    run_in(tmp_path, test)


def test_a_host_answers_no_question_and_calls_no_denied_tool(tmp_path: Path) -> None:
    async def test(it: House) -> None:
        it.ledger.deny = {"admin:*": ["pay*"]}
        run = await it.ask()
        claim = await it.taken()
        assert (claim.caller, claim.denied) == ("admin:me", ["pay*"])
        with pytest.raises(Forbidden, match="denied to admin:me"):
            await it.ledger.append(run, claim.fence, claim.events[-1].seq, [ToolCalled("call-1", "pay", {})])
        after = claim.events[-1].seq
        for said in (Approved("call-1", "admin:me"), Denied("call-1", "admin:me")):
            with pytest.raises(InvalidInput, match="within its claim"):
                await it.ledger.append(run, claim.fence, after, [ApprovalRequested("call-1", "pay", {}), said])

    run_in(tmp_path, test)


def test_a_webhook_that_stays_away_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "LOOK_S", 0.001)
    monkeypatch.setattr(notices, "FIRST_S", 0.001)
    told: list[Notice] = []

    async def post(body: bytes, key: str) -> int:
        told.append(msgspec.json.decode(body, type=Notice))
        assert key == told[-1].approval.id
        if len(told) == 1:
            raise Unavailable("away")
        return 500

    async def note(_: Approval, __: int) -> None:
        raise AssertionError("the webhook never took notice")

    async def test(it: House) -> None:
        known = approvals_of(it)
        await asked(it, "call-1")
        clock = SystemClock()
        serving = Notices(known.listing, note, post, clock, url="http://here", attempts=3).serve()
        task = asyncio.create_task(serving)
        async with asyncio.timeout(20):
            while len(told) < 3:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # a fourth would come within a few milliseconds
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(told) == 3
        assert not known.listing()[0].notified

    run_in(tmp_path, test)

"""Control over runs, and runs whose work is a program of the caller's."""

from __future__ import annotations

from llmagentos.agents.control import Control
from llmagentos.agents.hosted import require_own
from llmagentos.agents.ledger import Ledger
from llmagentos.agents.programs import Programs
from llmagentos.api.agents import AgentSpec
from llmagentos.api.control import Exit, NewPriority, NewProgram, Pause, Program
from llmagentos.api.runs import Run
from llmagentos.kernel.calls import priority_of
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.runs import ONE, resolve
from llmagentos.storage.agents import AgentRecords


def endpoints(ledger: Ledger, control: Control, programs: Programs, agents: AgentRecords) -> list[Endpoint]:
    """`ledger` finds runs, `control` changes them, `programs` are begun and ended, `agents` have their priority."""
    return [*_control(ledger, control), *_programs(ledger, programs, agents)]


def _control(ledger: Ledger, control: Control) -> list[Endpoint]:
    async def kill(call: Call) -> Run:
        return await control.kill(await resolve(ledger, call), by=str(call.identity))

    async def pause(call: Call) -> Run:
        request: Pause = call.body
        run = await resolve(ledger, call)
        return await control.pause(run, by=str(call.identity), now=request.now, reason=request.reason)

    async def resume(call: Call) -> Run:
        return await control.resume(await resolve(ledger, call), by=str(call.identity))

    async def renice(call: Call) -> Run:
        request: NewPriority = call.body
        nice = priority_of(str(request.priority))
        return await control.renice(await resolve(ledger, call), nice, by=str(call.identity))

    write = Permission.RUNS_WRITE
    return [
        Endpoint(
            "POST", f"{ONE}/kill", write, kill, returns=Run, summary="Stop a run and what it asked for", audited=True
        ),
        Endpoint(
            "POST",
            f"{ONE}/pause",
            write,
            pause,
            body=Pause,
            returns=Run,
            summary="Have a run start no further call",
            audited=True,
        ),
        Endpoint("POST", f"{ONE}/resume", write, resume, returns=Run, summary="Let a paused run go on", audited=True),
        Endpoint(
            "PUT",
            f"{ONE}/priority",
            write,
            renice,
            body=NewPriority,
            returns=Run,
            summary="Give a run another nice value",
            audited=True,
        ),
    ]


def _programs(ledger: Ledger, programs: Programs, agents: AgentRecords) -> list[Endpoint]:
    async def begin(call: Call) -> Program:
        request: NewProgram = call.body
        known = await agents.current(request.agent)
        spec = known.spec if known is not None else AgentSpec(name=request.agent)
        return await programs.begin(request, spec, by=str(call.identity))

    async def end(call: Call) -> Run:
        request: Exit = call.body
        require_own(call.identity, await ledger.host_of(call.path["id"]))  # a fence is a small number, no secret
        return await programs.exited(call.path["id"], request.fence, request.code)

    return [
        Endpoint(
            "POST",
            "/api/v1/programs",
            Permission.RUNS_WRITE,
            begin,
            body=NewProgram,
            returns=Program,
            summary="A run for a program that the caller starts, and a token for its calls to models",
            audited=True,
        ),
        Endpoint(
            "POST",
            "/api/v1/programs/{id}/exit",
            Permission.RUNS_EXECUTE,
            end,
            body=Exit,
            returns=Run,
            summary="Say how a program ended",
        ),
    ]

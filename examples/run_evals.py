"""Runs eval cases against agents of a running system and prints a table; exits with 1 when a case fails.

    python examples/run_evals.py examples/catalogue/evals.yaml

The server is found as `llmctl` finds it. A file names its agent and has cases: a request, and what is
expected of the run. `approve: true` (or false) answers the calls that wait for a person.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from llmagentos.api import approvals, runs
from llmagentos.api.client import ApiClient
from llmagentos.api.runs import Denied, Run, RunEvent, RunState, ToolCalled
from llmagentos.core.discovery import discover
from llmagentos.core.errors import LLMAgentOSError

ASK_S = 0.2
"""Pause before it is asked again whether a run has ended."""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of a tool that has to be in the log; further arguments may be there."""

    tool: str
    arguments: dict[str, Any] = {}


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run is checked for; what is not given is not checked. Case does not count in texts."""

    state: RunState = RunState.SUCCEEDED
    contains: list[str] = []
    """Texts in the answer."""
    lacks: list[str] = []
    """Texts that are not in it."""
    sources: list[str] = []
    """Texts that the records shown with the answer have."""
    called: list[Call] = []
    """Calls that were made, in this order."""
    not_called: list[str] = []
    """Tools that were not called."""
    denied: list[str] = []
    """Tools whose call a person did not allow."""
    unknown: bool = False
    """It says that it does not know, and shows no records."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request and what is expected."""

    name: str
    request: str
    expect: Expect
    approve: bool | None = None
    """The answer to each call that waits for a person; without it such a run is not waited for."""


class Evals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cases of one agent."""

    agent: str
    cases: list[Case]
    unknown: tuple[str, ...] = ("I do not know", "不知道")
    """How the agent says that it does not know: one of these."""


def read(file: Path) -> Evals:
    """The cases in a file. Raises `ValueError` with the place of what is wrong."""
    try:
        return msgspec.convert(yaml.safe_load(file.read_text("utf-8")), Evals)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"{file}: {error}") from None


def faults(expect: Expect, run: Run, log: Sequence[RunEvent], unknown: Sequence[str]) -> list[str]:
    """What is not as expected, in words."""
    return [*_of_answer(expect, run, unknown), *_of_calls(expect, log)]


def _of_answer(expect: Expect, run: Run, unknown: Sequence[str]) -> Iterator[str]:
    answer = (run.answer or "").lower()
    shown = [json.dumps(source, ensure_ascii=False).lower() for source in run.sources]
    if run.state is not expect.state:
        yield f"is {run.state}, not {expect.state}" + (f": {run.error}" if run.error else "")
    yield from (f"the answer lacks {text!r}" for text in expect.contains if text.lower() not in answer)
    yield from (f"the answer has {text!r}" for text in expect.lacks if text.lower() in answer)
    for text in expect.sources:
        if not any(text.lower() in source for source in shown):
            yield f"no source has {text!r}"
    if expect.unknown and (run.sources or not any(text.lower() in answer for text in unknown)):
        yield f"it does not say that it does not know: {run.answer!r}"


def _of_calls(expect: Expect, log: Sequence[RunEvent]) -> Iterator[str]:
    made = [event.data for event in log if isinstance(event.data, ToolCalled)]
    asked = {event.data.call_id: event.data.name for event in log if isinstance(event.data, runs.ApprovalRequested)}
    denied = {asked[event.data.call_id] for event in log if isinstance(event.data, Denied)}
    rest = iter(made)
    for call in expect.called:
        if not any(_fits(call, each) for each in rest):  # takes from `rest`: the order counts
            yield f"no call of {call.tool} with {call.arguments}; calls were {[each.name for each in made]}"
            break
    yield from (f"{name} was called" for name in expect.not_called if any(each.name == name for each in made))
    yield from (f"{name} was not denied" for name in expect.denied if name not in denied)


def _fits(call: Call, made: ToolCalled) -> bool:
    given = made.arguments
    return made.name == call.tool and all(given.get(name) == value for name, value in call.arguments.items())


async def evaluate(client: ApiClient, evals: Evals, case: Case, *, timeout: float) -> list[str]:
    """Run one case; what is not as expected. Raises what the server says when it cannot be asked."""
    run = (await runs.start(client, evals.agent, case.request)).id
    try:
        async with asyncio.timeout(timeout):
            found = await _ended(client, run, case.approve)
    except TimeoutError:
        await client.post(f"/api/v1/runs/{run}/kill", None, Run)
        return [f"no end within {timeout:g} s"]
    wrong = faults(case.expect, found, await runs.events(client, run), evals.unknown)
    return [*wrong, f"the answer was {found.answer!r}"] if wrong else []


async def _ended(client: ApiClient, run: str, approve: bool | None) -> Run:
    while True:
        found = await runs.get(client, run)
        if found.state.ended or (approve is None and found.state is RunState.WAITING):
            return found
        if found.state is RunState.WAITING:
            answer = approvals.approve if approve else approvals.deny
            for each in await approvals.listing(client):
                if each.run == run:
                    await answer(client, each.id, "eval case")
        await asyncio.sleep(ASK_S)


async def _all(files: Sequence[Evals], timeout: float) -> int:
    credentials = discover()
    failed = total = 0
    async with ApiClient(credentials.server, credentials.token, tls=credentials.tls()) as client:
        for evals in files:
            for case in evals.cases:
                wrong = await evaluate(client, evals, case, timeout=timeout)
                total, failed = total + 1, failed + bool(wrong)
                print(f"{'FAIL' if wrong else 'ok':<5} {evals.agent:<12} {case.name}")
                print("".join(f"      {line}\n" for line in wrong), end="")
    print(f"{total - failed} of {total} cases are as expected")
    return 1 if failed else 0


def main() -> int:
    """The exit code: 0, 1 when a case fails, 2 when cases or server cannot be used."""
    parser = argparse.ArgumentParser(description="Run eval cases against agents of a running system.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one case (120)")
    given = parser.parse_args()
    try:
        return asyncio.run(_all([read(file) for file in given.files], given.timeout))
    except (ValueError, LLMAgentOSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""Who takes part when a job's plays span nodes, or that none do; what cannot be done so is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmagentos.api.jobs import JobSpec
from llmagentos.api.plays import Span
from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.playbooks import fetches, spanning
from llmagentos.fleet.playbooks.check import Play, Reader
from llmagentos.fleet.playbooks.inventory import Builder
from llmagentos.fleet.playbooks.spanning import Found, Needs

MAX_NODES = 100
"""Every node gets what every other one's tasks came to: that grows with the square."""
MAX_REASONS = 10
"""Of those that are told."""


def of(
    spec: JobSpec,
    files: Mapping[str, bytes],
    reader: Reader,
    plays: Sequence[Play],
    wants: Needs,
    hosts: Sequence[str],
    builder: Builder,
    nodes: frozenset[str],
) -> Span | None:
    """The nodes that go in step; None when each can run the playbook by itself.

    Raises `PlaybookError` with file:line for what cannot be done on several nodes.
    """
    helpers = spanning.assistants(wants, list(builder.hosts), builder.groups(), nodes)
    taking_part = [host for host in builder.hosts if host in helpers or host in hosts]
    if len(taking_part) < 2:
        return None
    used = fetches.read_again(files, spec.extra_vars)
    reasons = wants.found if len(hosts) > 1 or helpers - set(hosts) else []
    if len(hosts) > 1:
        file, line = reader.fetches[0] if reader.fetches else (plays[0].file, plays[0].line)
        reasons = [*reasons, *([Found(file, line, "what is fetched is used again")] if used else [])]
        reasons = [*reasons, *_loose(reader, plays)]
        if spec.forks is not None and spec.forks < len(hosts):
            reasons = [Found(plays[0].file, plays[0].line, f"--forks {spec.forks}"), *reasons]
    if not _wanted(spec, reasons):
        return None
    read = frozenset(reader.read)
    spanning.refuse(files, read)
    if len(taking_part) > MAX_NODES:
        raise InvalidInput(
            f"{_first(reasons)}these are {len(taking_part)} nodes, and at most {MAX_NODES} can go in step",
            hint="fewer at a time with --limit, or split the playbook",
        )
    return Span(
        nodes=taking_part,
        lead=hosts[0],
        forks=spec.forks or len(taking_part),
        limit=spec.limit,
        files=used,
        reasons=[str(found) for found in reasons[:MAX_REASONS]] or ["it was asked for"],
    )


def _loose(reader: Reader, plays: Sequence[Play]) -> list[Found]:
    """What is only a matter of order, or cannot be known here."""
    later = [Found(plays[1].file, plays[1].line, "a second play", firm=False)] if len(plays) > 1 else []
    return later + [
        Found(file, line, f"the role {name!r}, which is not beside the playbook", firm=False)
        for file, line, name in reader.absent
    ]


def _wanted(spec: JobSpec, reasons: Sequence[Found]) -> bool:
    firm = [found for found in reasons if found.firm]
    if spec.rollout is not None:
        if firm or spec.lockstep:
            raise _apart(firm, "a rollout runs the nodes in batches of its own", "leave out one of the two")
        return False
    if spec.lockstep is False:
        if firm:
            raise _apart(firm, "--no-lockstep has each node run by itself", "leave it out")
        return False
    if not reasons and not spec.lockstep:
        return False
    if spec.retries is not None:
        hint = "leave out the retries"
        hint += "" if firm or spec.lockstep else ", or have each node run by itself: --no-lockstep"
        raise _apart(reasons, "one node cannot try again while the others go on", hint)
    return True


def _apart(reasons: Sequence[Found], why: str, hint: str) -> InvalidInput:
    return InvalidInput(f"{_first(reasons)}this has the nodes go in step, and {why}", hint=hint)


def _first(reasons: Sequence[Found]) -> str:
    return f"{reasons[0]}: " if reasons else ""

"""Everything that can be found wrong with a playbook before it runs, all of it and not only the first."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from llmagentos.api.jobs import JobSpec
from llmagentos.core.errors import InvalidInput, nearest
from llmagentos.fleet.playbooks import bundle, spanning
from llmagentos.fleet.playbooks.check import Play, Reader
from llmagentos.fleet.playbooks.document import PlaybookError
from llmagentos.fleet.playbooks.findings import Finding, Findings
from llmagentos.fleet.playbooks.inventory import Builder
from llmagentos.fleet.playbooks.patterns import IMPLICIT, Selector, UnknownHost
from llmagentos.fleet.playbooks.sources import of_nodes, read
from llmagentos.fleet.playbooks.vocabulary import vocabulary

_PLACE = re.compile(r"(?P<file>[^\n]+?):(?P<line>\d+): (?P<message>.*)", re.S)


def lint(spec: JobSpec, content: bytes, nodes: Sequence[str] | None) -> list[Finding]:
    """What is wrong with the playbook in the bundle `content`, by place; `nodes` is None when they are not known.

    Raises `InvalidInput` when there is no such playbook, `BadBundle` for another bundle.
    """
    files = bundle.read(content)
    path = posixpath.normpath(spec.playbook)
    if path not in files:
        close = nearest(path, files)
        raise InvalidInput(
            f"there is no playbook {spec.playbook!r}", hint=f"did you mean {close!r}?" if close else None
        )
    findings = Findings(stops=False)
    reader = Reader(files, vocabulary(), spec.extra_vars, findings)
    plays: list[Play] = []
    with findings.going_on():
        plays = reader.playbook(path)
    builder = _inventory(spec, nodes, findings)
    if builder is not None:
        wants = spanning.needs(files, frozenset(reader.read))
        for finding in _hosts(plays, builder, wants, None if nodes is None else frozenset(nodes)):
            findings.add(finding)
        if len(builder.hosts) > 1 and wants.found:
            with findings.going_on():
                spanning.refuse(files, frozenset(reader.read))
    return sorted(findings.found, key=lambda found: (found.file, found.line))


def _inventory(spec: JobSpec, nodes: Sequence[str] | None, findings: Findings) -> Builder | None:
    if not spec.inventory:
        return None if nodes is None else of_nodes(nodes)
    with findings.going_on():
        return read(spec.inventory)
    return None


def _hosts(
    plays: Sequence[Play], builder: Builder, wants: spanning.Needs, nodes: frozenset[str] | None
) -> Iterator[Finding]:
    selector = Selector(list(builder.hosts), builder.groups())
    used: set[str] = set()
    for play in plays:
        try:
            used |= set(selector.select(play.hosts or ()) if play.hosts is not None else ())
        except UnknownHost as error:
            if not wants.makes_groups:
                yield Finding(play.file, play.line, "error", "hosts", error.message, error.hint)
        except InvalidInput as error:
            yield Finding(play.file, play.line, "error", "hosts", error.message, error.hint)
    known = frozenset(builder.hosts) if nodes is None else nodes
    try:
        spanning.assistants(wants, list(builder.hosts), builder.groups(), known)
    except PlaybookError as error:
        yield _placed(error, "hosts")
    for host in sorted(used - known - IMPLICIT if nodes is not None else ()):
        place = _PLACE.fullmatch(f"{builder.places.get(host, 'inventory:1')}: no node has the name {host!r}")
        assert place is not None
        hint = "`llmctl nodes` lists the nodes"
        yield Finding(place["file"], int(place["line"]), "error", "hosts", place["message"], hint)


def _placed(error: PlaybookError, code: str) -> Finding:
    place = _PLACE.fullmatch(error.message)
    if place is None:
        return Finding("", 1, "error", code, error.message, error.hint)
    return Finding(place["file"], int(place["line"]), "error", code, place["message"], error.hint)

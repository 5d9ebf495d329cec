"""From what was asked to what the nodes do: the playbook is right, its hosts are nodes, or one error says why not."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from llmagentos.api.jobs import ANSWERS, Inventory, JobSpec
from llmagentos.core.errors import InvalidInput, nearest
from llmagentos.fleet.playbooks import bundle, foreign, spanning, spans
from llmagentos.fleet.playbooks.check import Play, Reader
from llmagentos.fleet.playbooks.document import fail
from llmagentos.fleet.playbooks.inventory import Builder
from llmagentos.fleet.playbooks.machines import FILTER, matching, mentions_groups
from llmagentos.fleet.playbooks.patterns import IMPLICIT, Selector, UnknownHost
from llmagentos.fleet.playbooks.prompts import Prompt
from llmagentos.fleet.playbooks.sources import of_nodes, read
from llmagentos.fleet.playbooks.vocabulary import vocabulary


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes that get the job, in the inventory's order, and the inventory they get."""

    hosts: list[str]
    inventory: Inventory
    local: bool
    """A play says `hosts: localhost`: on each node that is the node itself."""


def plan(spec: JobSpec, content: bytes, nodes: Sequence[str]) -> Plan:
    """Check the playbook in the bundle `content` and find its hosts among `nodes`.

    Raises `PlaybookError`, `InventoryError` or `UnknownHost` with file:line, `BadBundle` for another bundle.
    """
    files = bundle.read(content)
    path = posixpath.normpath(spec.playbook)
    if spec.kind != "playbook":
        return _foreign(spec, files, nodes)
    if path not in files:
        close = nearest(path, files)
        raise InvalidInput(
            f"there is no playbook {spec.playbook!r} in the bundle", hint=f"did you mean {close!r}?" if close else None
        )
    reader = Reader(files, vocabulary(), spec.extra_vars)
    plays = reader.playbook(path)
    _answered(reader.prompts, spec.extra_vars)
    builder = read(spec.inventory) if spec.inventory else of_nodes(nodes)
    wants = spanning.needs(files, frozenset(reader.read))
    allowed = _allowed(builder, spec.limit, nodes)
    hosts, local = _targets(plays, builder, allowed, spec.limit, wants.makes_groups)
    if spec.limit is not None and spec.limit.startswith(FILTER):  # what runs the playbook knows host patterns alone
        spec = msgspec.structs.replace(spec, limit=",".join(host for host in builder.hosts if host in allowed))
    _require_nodes(hosts, builder, nodes)
    directories = [source.directory for source in spec.inventory if source.directory is not None]
    span = spans.of(spec, files, reader, plays, wants, hosts, builder, frozenset(nodes))
    if not spec.inventory and not mentions_groups([*files.values(), *map(str.encode, files)]):
        builder = of_nodes(nodes, grouped=False)
    inventory = builder.wire(directories[0] if directories else None)
    if span is not None:
        inventory = msgspec.structs.replace(inventory, span=span)
        return Plan(span.nodes, inventory, local)
    return Plan(hosts, inventory, local)


def _answered(prompts: Sequence[Prompt], given: Mapping[str, object]) -> None:
    """Raise `PlaybookError` for what a play asks for and nobody answered."""
    for prompt in prompts:
        if prompt.name not in given and prompt.default is None and ANSWERS not in given:
            message = f"vars_prompt asks for {prompt.name!r}, which has no default and was not answered"
            fail(prompt.file, prompt.line, message, hint=f"-e {prompt.name}=VALUE")


def _foreign(spec: JobSpec, files: Mapping[str, bytes], nodes: Sequence[str]) -> Plan:
    """Content of another tool: it runs on all hosts that the limit leaves, and only the tool can check it."""
    foreign.check(spec, files)
    builder = read(spec.inventory) if spec.inventory else of_nodes(nodes)
    allowed = _allowed(builder, spec.limit, nodes)
    hosts = [host for host in builder.hosts if host in allowed]
    if not hosts:
        raise UnknownHost("no host is left for it", hint="`llmctl nodes` lists the nodes")
    _require_nodes(hosts, builder, nodes)
    return Plan(hosts, builder.wire(None), local=False)


def _allowed(builder: Builder, limit: str | None, nodes: Sequence[str]) -> set[str]:
    """The hosts that `--limit` leaves: a host pattern, or `filter:` with an expression over the nodes' facts."""
    if limit is None:
        return set(builder.hosts)
    if not limit.startswith(FILTER):
        return set(_limited(Selector(list(builder.hosts), builder.groups()), limit))
    found = matching(nodes, limit.removeprefix(FILTER)) & builder.hosts.keys()
    if not found:
        hint = "`llmctl nodes --filter EXPRESSION` tries it"
        raise UnknownHost(f"--limit: no node matches the filter {limit.removeprefix(FILTER)!r}", hint=hint)
    return found


def _targets(
    plays: Sequence[Play], builder: Builder, allowed: set[str], limit: str | None, makes_groups: bool
) -> tuple[list[str], bool]:
    selector = Selector(list(builder.hosts), builder.groups())
    wanted: set[str] = set()
    local = False
    for play in plays:
        found = set(builder.hosts if play.hosts is None else _selected(selector, play, makes_groups))
        local = local or bool((found & IMPLICIT) - builder.hosts.keys())
        wanted |= found & allowed
    if local and not wanted & builder.hosts.keys():
        wanted = _only(plays[0], [host for host in builder.hosts if host in allowed])
    targets = [host for host in builder.hosts if host in wanted]
    if not targets:
        raise _nothing(plays[0], builder, limit)
    return targets, local


def _selected(selector: Selector, play: Play, makes_groups: bool) -> list[str]:
    try:
        return selector.select(play.hosts or ())
    except UnknownHost as error:
        if makes_groups:  # it may come to be while the playbook runs
            return []
        raise UnknownHost(f"{play.file}:{play.line}: {error.message}", hint=error.hint, **error.details) from None
    except InvalidInput as error:
        fail(play.file, play.line, error.message, hint=error.hint)


def _limited(selector: Selector, limit: str) -> list[str]:
    if limit.startswith("@"):
        raise InvalidInput(f"--limit {limit}: files of hosts are not taken here", hint="--limit host1,host2")
    try:
        return selector.select([limit])
    except UnknownHost as error:
        raise UnknownHost(f"--limit: {error.message}", hint=error.hint, **error.details) from None


def _only(play: Play, hosts: list[str]) -> set[str]:
    if len(hosts) != 1:
        fail(
            play.file,
            play.line,
            f"hosts: localhost means the node itself, and there are {len(hosts)} nodes to choose from",
            hint="choose one with --limit NODE, or write the node's name or a group",
        )
    return set(hosts)


def _nothing(play: Play, builder: Builder, limit: str | None) -> InvalidInput:
    if not builder.hosts:
        return UnknownHost("there is no node and no host in the inventory", hint="`llmctl node join` makes a node")
    limited = f" within --limit {limit}" if limit else ""
    return UnknownHost(f"{play.file}:{play.line}: no host matches{limited}", hint="`llmctl nodes` lists the nodes")


def _require_nodes(hosts: Sequence[str], builder: Builder, nodes: Sequence[str]) -> None:
    known = set(nodes)
    for host in hosts:
        if host not in known:
            close = nearest(host, nodes)
            raise UnknownHost(
                f"{builder.places[host]}: unknown host {host!r}: no node has this name",
                hint=f"did you mean {close!r}?" if close else "`llmctl nodes` lists the nodes",
                host=host,
            )

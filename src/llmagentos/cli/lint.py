"""`llmctl lint`: what is wrong with playbooks, before anything is queued."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from llmagentos.api import nodes as api
from llmagentos.api.jobs import JobSpec
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.inventories import read_inventories
from llmagentos.cli.output import emit, emit_json, json_option, note, paint
from llmagentos.cli.pack import pack
from llmagentos.cli.playbook_options import extra_vars, variable_option
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.core.i18n import tr
from llmagentos.fleet.playbooks.findings import Finding
from llmagentos.fleet.playbooks.lint import lint as check

FOUND = 2
_OTHERS = {".pp": "puppet parser validate MANIFEST.pp", ".sls": "salt-call --local state.show_sls NAME"}
"""What is run like a playbook, and how its own tool checks it."""


@click.command(help=tr("Check playbooks: YAML, modules, options, files, roles, hosts; each fault with file:line."))
@click.argument("playbooks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--inventory",
    "inventories",
    multiple=True,
    help=tr("Inventory to check hosts and groups against (default: the server's nodes, when it answers)."),
)
@variable_option
@click.option("--offline", is_flag=True, help=tr("Do not ask the server for its nodes."))
@json_option
@click.pass_context
def lint(
    ctx: click.Context,
    playbooks: tuple[Path, ...],
    inventories: tuple[str, ...],
    extra: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> None:
    """Exit code 0 without errors, 2 with one."""
    nodes = None if offline else _nodes()
    if nodes is None and not inventories:
        note(tr("hosts are not checked: no inventory was given, and no server tells its nodes"))
    variables = extra_vars(extra)
    found = [finding for path in playbooks for finding in _check(path, inventories, variables, nodes)]
    errors = sum(finding.severity == "error" for finding in found)
    if as_json:
        emit_json(found)
    else:
        for finding in found:
            _print(finding)
        note(tr("errors: {errors}, warnings: {warnings}", errors=errors, warnings=len(found) - errors))
    ctx.exit(FOUND if errors else 0)


def _check(
    playbook: Path, inventories: tuple[str, ...], variables: dict[str, object], nodes: list[str] | None
) -> list[Finding]:
    if (theirs := _OTHERS.get(playbook.suffix)) is not None:
        raise InvalidInput(
            tr("{path} is no Ansible playbook: only those are checked here", path=repr(str(playbook))), hint=theirs
        )
    if not playbook.is_file():
        raise InvalidInput(
            tr("there is no playbook {path}", path=repr(str(playbook))), hint=tr("the path of a YAML file")
        )
    directory = playbook.absolute().parent
    sources, outside = read_inventories(inventories, directory)
    digest, content = pack(directory, more=outside)
    spec = JobSpec(digest, playbook.name, sources, extra_vars=variables)
    found = check(spec, content, nodes)
    if playbook.parent == Path():
        return found
    return [_seen_from_here(finding, playbook.parent) for finding in found]


def _seen_from_here(finding: Finding, directory: Path) -> Finding:
    """With the path as whoever called sees it: those of the bundle are relative to the playbook."""
    path = directory / finding.file
    return msgspec.structs.replace(finding, file=str(path)) if path.is_file() else finding


def _nodes() -> list[str] | None:
    async def names() -> list[str]:
        async with connected() as client:
            return [node.name for node in await api.listing(client)]

    try:
        return execute(names())
    except LLMAgentOSError:
        return None


def _print(finding: Finding) -> None:
    colour = "red" if finding.severity == "error" else "yellow"
    word = tr("error") if finding.severity == "error" else tr("warning")
    emit(f"{finding.file}:{finding.line}: {paint(word, colour)}: {finding.message} [{finding.code}]")
    if finding.hint:
        emit(f"    {tr('hint: {hint}', hint=finding.hint)}")

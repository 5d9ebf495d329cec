"""`llmctl run`: a playbook on nodes, watched as ansible-playbook shows it."""

from __future__ import annotations

import posixpath
import shlex
from pathlib import Path
from typing import Any

import click
import yaml

from llmagentos.api import jobs as api
from llmagentos.api.http import ConnectionLost
from llmagentos.api.jobs import InventorySource, Job, JobSpec
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.job_following import watch
from llmagentos.cli.output import emit, emit_json, json_option, note
from llmagentos.cli.pack import pack
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from llmagentos.core.i18n import tr

VARIABLE_DIRECTORIES = ("group_vars", "host_vars")
OUTSIDE = ".llmagentos-inventory"
"""Where the `group_vars` and `host_vars` of an inventory outside of the playbook's directory go in the bundle."""


@click.command(help=tr("Run the Ansible-format file PLAYBOOK on nodes. Its directory goes along."))
@click.argument("playbook", type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--inventory",
    "inventories",
    multiple=True,
    help=tr("Inventory file (INI or YAML) or names with commas; host names are node names (default: all nodes)."),
)
@click.option("-l", "--limit", help=tr("Only hosts that this pattern matches."))
@click.option("-C", "--check", is_flag=True, help=tr("Change nothing; say what would change."))
@click.option("-D", "--diff", is_flag=True, help=tr("Show differences of changed files."))
@click.option("-e", "--extra-vars", "extra", multiple=True, help=tr("Variables: k=v, @file or a YAML or JSON mapping."))
@click.option("-t", "--tags", multiple=True, help=tr("Only tasks with these tags (commas or repeated)."))
@click.option("--skip-tags", multiple=True, help=tr("Not the tasks with these tags."))
@click.option("-v", "--verbose", "verbosity", count=True, help=tr("Show results (-vv and more: more)."))
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), help=tr("Seconds after which a node stops it."))
@click.option("--detach", is_flag=True, help=tr("Queue it, print its number, do not wait."))
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    playbook: Path,
    inventories: tuple[str, ...],
    limit: str | None,
    check: bool,
    diff: bool,
    extra: tuple[str, ...],
    tags: tuple[str, ...],
    skip_tags: tuple[str, ...],
    verbosity: int,
    timeout_s: float | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Exit code 0 when all hosts succeeded, 2 when one failed, 4 when one was unreachable, 1 when cancelled."""
    if not playbook.is_file():
        raise InvalidInput(
            tr("there is no playbook {path}", path=repr(str(playbook))), hint=tr("the path of a YAML file")
        )
    directory = playbook.absolute().parent
    sources, outside = read_inventories(inventories, directory)
    digest, content = pack(directory, more=outside)
    spec = JobSpec(
        bundle=digest,
        playbook=playbook.name,
        inventory=sources,
        limit=limit,
        extra_vars=extra_vars(extra),
        check=check,
        diff=diff,
        tags=_listed(tags),
        skip_tags=_listed(skip_tags),
        verbosity=min(verbosity, 4),
        timeout_s=timeout_s or JobSpec(digest, "").timeout_s,
    )
    job = execute(_submit(spec, content))
    if detach or as_json:
        _detached(job, as_json)
        return
    names = ", ".join(job.summary.nodes)
    note(tr("job {job} on {names}", job=job.summary.id, names=names))
    ctx.exit(watch(job.summary.id, hosts=len(job.hosts), verbosity=verbosity, offer_cancel=True))


def _detached(job: Job, as_json: bool) -> None:
    if as_json:
        emit_json(job)
        return
    emit(str(job.summary.id))
    note(tr("queued. `llmctl job logs {job} -f` follows it", job=job.summary.id))


async def _submit(spec: JobSpec, content: bytes) -> Job:
    async with connected() as client:
        try:
            await api.bundle(client, spec.bundle)
        except NotFound:
            await api.upload_bundle(client, spec.bundle, content)
        try:
            return await api.submit(client, spec)
        except (ConnectionLost, DeadlineExceeded) as error:
            hint = tr("it may have been queued all the same: `llmctl jobs` says so before you run it again")
            raise Unavailable(error.message, hint=hint) from None


def _listed(values: tuple[str, ...]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def extra_vars(given: tuple[str, ...]) -> dict[str, Any]:
    """`-e` as ansible-playbook takes it; later ones win. Raises `InvalidInput`."""
    found: dict[str, Any] = {}
    for text in given:
        if text.startswith("@"):
            found |= _mapping(_read(Path(text[1:])), text)
        elif text.lstrip().startswith(("{", "[")):
            found |= _mapping(text, text)
        else:
            found |= _pairs(text)
    return found


def _pairs(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInput(tr("-e {given}: {error}", given=repr(text), error=str(error).lower())) from None
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name.isidentifier():
            raise InvalidInput(
                tr("-e {given}: expected name=value", given=repr(text)), hint=tr("or @file.yml, or a mapping in JSON")
            )
    return {name: value for name, _, value in pairs}


def _mapping(text: str, what: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(tr("-e {given}: not YAML: {error}", given=repr(what[:80]), error=error)) from None
    if found is None and what.startswith("@"):
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InvalidInput(tr("-e {given}: expected a mapping of names to values", given=repr(what[:80])))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(tr("{path} is not UTF-8", path=path)) from None
    except OSError as error:
        raise InvalidInput(tr("{path} cannot be read: {error}", path=path, error=error.strerror)) from None


def read_inventories(given: tuple[str, ...], directory: Path) -> tuple[list[InventorySource], dict[str, Path]]:
    """The inventories as sent, and what has to be packed beside the playbook's directory for them."""
    sources: list[InventorySource] = []
    outside: dict[str, Path] = {}
    for text in given:
        if "," in text and not Path(text).exists():
            names = [name.strip() for name in text.split(",") if name.strip()]
            sources.append(InventorySource(text, "\n".join(names)))
            continue
        path = Path(text)
        files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
        folder = (path if path.is_dir() else path.parent).absolute()
        place = _variables(folder, directory, outside)
        sources += [_source(each, place) for each in files if not each.name.startswith(".")]
    return sources, outside


def _source(path: Path, place: str | None) -> InventorySource:
    text = _read(path)
    if text.startswith("#!"):
        raise InvalidInput(
            tr("{path}: inventory scripts are not run", path=path),
            hint=tr("save its output: `{path} --list`, as an inventory in YAML", path=path),
        )
    return InventorySource(str(path), text, place)


def _variables(folder: Path, directory: Path, outside: dict[str, Path]) -> str | None:
    """Where in the bundle the inventory's own variables are; they are added to `outside` when they are not there."""
    found = [name for name in VARIABLE_DIRECTORIES if (folder / name).exists()]
    if not found or folder == directory:  # ansible-core reads those beside the playbook anyway
        return None
    if folder.is_relative_to(directory):
        return folder.relative_to(directory).as_posix()
    for name in found:
        if outside.setdefault(posixpath.join(OUTSIDE, name), folder / name) != folder / name:
            raise InvalidInput(
                tr("two inventories outside of the playbook's directory both have {name}", name=name),
                hint=tr("keep them in one directory, or in the playbook's"),
            )
    return OUTSIDE

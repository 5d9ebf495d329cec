"""`llmctl run`: a playbook on nodes, watched as ansible-playbook shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from llmagentos.api import jobs as api
from llmagentos.api.client import ApiClient
from llmagentos.api.http import ConnectionLost
from llmagentos.api.jobs import ANSWERS, Job, JobRequest, JobSpec, Kind
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.inventories import read_inventories, read_text
from llmagentos.cli.job_options import control_options
from llmagentos.cli.output import emit, emit_json, note
from llmagentos.cli.pack import pack
from llmagentos.cli.playbook_options import extra_vars, inventory_options, listed, variable_option, vault_options
from llmagentos.cli.vault_passwords import vault_passwords
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from llmagentos.core.i18n import tr
from llmagentos.fleet.playbooks import bundle

RETRY = "@retry"
_ASKS = (b"vars_prompt", b"import_playbook")
LOOKED_AT = 200
"""Newest jobs among which `--limit @retry` looks for the playbook's last one."""


@click.command(
    help=tr(
        "Run PLAYBOOK on nodes: an Ansible-format file, a Puppet manifest or Salt states. Its directory goes along."
    )
)
@click.argument("playbook", type=click.Path(path_type=Path))
@inventory_options
@click.option("-C", "--check", is_flag=True, help=tr("Change nothing; say what would change."))
@click.option("-D", "--diff", is_flag=True, help=tr("Show differences of changed files."))
@variable_option
@click.option("-t", "--tags", multiple=True, help=tr("Only tasks with these tags (commas or repeated)."))
@click.option("--skip-tags", multiple=True, help=tr("Not the tasks with these tags."))
@click.option("--start-at-task", help=tr("Begin with the task of this name."))
@click.option("--step", is_flag=True, hidden=True)
@click.option("-f", "--forks", type=click.IntRange(min=1), help=tr("Nodes at a time, for each task (default: all)."))
@click.option(
    "--lockstep/--no-lockstep",
    default=None,
    help=tr("All nodes go from task to task together, or each by itself (default: as the playbook needs it)."),
)
@vault_options
@click.option("-v", "--verbose", "verbosity", count=True, help=tr("Show results (-vv and more: more)."))
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), help=tr("Seconds after which a node stops it."))
@control_options
@click.option("--detach", is_flag=True, help=tr("Queue it, print its number, do not wait."))
@click.option("--json", "as_json", is_flag=True, help=tr("Print one JSON document: the job and its events."))
@click.option("--json-lines", "as_lines", is_flag=True, help=tr("Print each event as a line of JSON, the job at last."))
@click.pass_context
def run(
    ctx: click.Context, /, playbook: Path, step: bool, detach: bool, as_json: bool, as_lines: bool, **given: Any
) -> None:
    """Exit code 0 when all hosts succeeded, 2 when one failed, 4 when one was unreachable, 1 when cancelled."""
    if not playbook.exists():
        raise InvalidInput(
            tr("there is no playbook {path}", path=repr(str(playbook))),
            hint=tr("the path of a YAML file, a Puppet manifest (.pp) or a directory of Salt states"),
        )
    if step:
        raise InvalidInput(
            tr("--step asks before each task, and nodes run a playbook without anybody to ask"),
            hint=tr("--check --diff shows what it would do; --tags and --start-at-task take a part of it"),
        )
    request, content = asked(playbook, **given)
    files = bundle.read(content) if request.kind == "playbook" else {}
    job = execute(submit(_completed(request, files), content))
    if detach:
        _detached(job, as_json)
        return
    note(tr("job {job} on {names}", job=job.summary.id, names=", ".join(job.summary.nodes)))
    # What these import is loaded while the nodes are at work.
    from llmagentos.cli.job_files import brought
    from llmagentos.cli.job_following import Document, Lines, Text, watch

    text = Text(hosts=len(job.hosts), verbosity=given["verbosity"])
    telling = Lines() if as_lines else Document() if as_json else text
    code = watch(job.summary.id, telling, offer_cancel=True)
    ctx.exit(brought(job, files, playbook.absolute().parent, code))


def _completed(request: JobRequest, files: Mapping[str, bytes]) -> JobRequest:
    """With what this machine and its user have to say to the playbook.

    Imported only for playbooks that may ask: it takes as long as all else before a job is queued.
    """
    if any(word in files.get(request.playbook, b"") for word in _ASKS):
        request = _answered(request, files)
    if any(b"fetch" in text for text in files.values()):
        from llmagentos.cli.fetched_before import with_fetched_before

        request = with_fetched_before(request, files)
    return request


def _answered(request: JobRequest, files: Mapping[str, bytes]) -> JobRequest:
    """With what the playbook's `vars_prompt` asks for: it goes to nodes only, and is forgotten when the job ends."""
    from llmagentos.cli.prompting import answers

    if not (found := answers(files, request.playbook, request.extra_vars)):
        return request
    variables, secrets = {**request.extra_vars, ANSWERS: found}, [*request.secrets, ANSWERS]
    return msgspec.structs.replace(request, extra_vars=variables, secrets=secrets)


def asked(
    playbook: Path,
    *,
    inventories: tuple[str, ...],
    limit: str | None,
    extra: tuple[str, ...],
    tags: tuple[str, ...],
    skip_tags: tuple[str, ...],
    verbosity: int,
    timeout_s: float | None,
    ask_vault_pass: bool,
    vault_files: tuple[str, ...],
    vault_ids: tuple[str, ...],
    **more: Any,
) -> tuple[JobRequest, bytes]:
    """The job that the options ask for, and the playbook's directory, packed. Raises `InvalidInput`."""
    kind, directory, prefix, path = _content(playbook.absolute())
    sources, outside = read_inventories(inventories, directory)
    digest, content = pack(directory, more=outside, prefix=prefix)
    return (
        JobRequest(
            bundle=digest,
            playbook=path,
            kind=kind,
            inventory=sources,
            limit=_limit(limit, path),
            extra_vars=extra_vars(extra),
            tags=listed(tags),
            skip_tags=listed(skip_tags),
            verbosity=min(verbosity, 4),
            timeout_s=timeout_s or JobSpec(digest, "").timeout_s,
            vault=vault_passwords(ask_vault_pass, vault_files, vault_ids),
            **more,
        ),
        content,
    )


def _content(path: Path) -> tuple[Kind, Path, str, str]:
    """What `path` is, the directory to pack and where in the bundle, and where in the bundle the path then is."""
    if path.is_dir():
        if not any(path.rglob("*.sls")):
            raise InvalidInput(
                tr("{path} is a directory without Salt states", path=repr(str(path))), hint=tr("name a playbook in it")
            )
        return "salt", path, path.name, path.name
    if path.suffix == ".sls":
        return "salt", path.parent, path.parent.name, f"{path.parent.name}/{path.name}"
    if path.suffix == ".pp":
        # In the layout of a Puppet environment the modules are beside the manifests' directory.
        root = path.parent.parent if path.parent.name == "manifests" else path.parent
        return "puppet", root, "", path.relative_to(root).as_posix()
    return "playbook", path.parent, "", path.name


def _limit(given: str | None, playbook: str) -> str | None:
    """`--limit` with what `@FILE` and `@retry` stand for."""
    if given is None or not given.startswith("@"):
        return given
    path = Path(given[1:])
    if given == RETRY and not path.is_file():
        names: Sequence[str] = execute(_failed(playbook))
        note(tr("again on {names}", names=", ".join(names)))
    else:
        names = [line.strip() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    if not names:
        raise InvalidInput(tr("--limit {given}: no host is named", given=given))
    return ",".join(names)


async def _failed(playbook: str) -> list[str]:
    """The nodes on which the playbook did not succeed the last time."""
    async with connected() as client:
        for summary in await api.listing(client, limit=LOOKED_AT):
            if summary.name == playbook and summary.ended is not None:
                job = await api.show(client, summary.id)
                return [host.node for host in job.hosts if host.state != "succeeded"]
    raise InvalidInput(tr("--limit @retry: {playbook} has not been run lately", playbook=repr(playbook)))


def _detached(job: Job, as_json: bool) -> None:
    if as_json:
        emit_json(job)
        return
    emit(str(job.summary.id))
    note(tr("queued. `llmctl job logs {job} -f` follows it", job=job.summary.id))


async def submit(request: JobRequest, content: bytes) -> Job:
    """Upload the bundle where it is not there yet, and ask for the job."""
    async with connected() as client:
        await uploaded(client, request.bundle, content)
        try:
            return await api.submit(client, request)
        except (ConnectionLost, DeadlineExceeded) as error:
            hint = tr("it may have been queued all the same: `llmctl jobs` says so before you run it again")
            raise Unavailable(error.message, hint=hint) from None


async def uploaded(client: ApiClient, digest: str, content: bytes) -> None:
    """Have the server know the bundle."""
    try:
        await api.bundle(client, digest)
    except NotFound:
        await api.upload_bundle(client, digest, content)

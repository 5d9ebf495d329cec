"""Files that a job's tasks fetched: listed, and written to where the playbook has them on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import click

from llmagentos.api import job_files as api
from llmagentos.api.client import ApiClient
from llmagentos.api.job_files import JobFile
from llmagentos.api.jobs import Job
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.job_following import INTERRUPTED
from llmagentos.cli.output import emit, emit_json, json_option, note, size, table, when
from llmagentos.core.errors import InvalidInput, Unavailable
from llmagentos.core.files import sha256_of
from llmagentos.core.i18n import tr
from llmagentos.fleet.playbooks.destinations import Destination
from llmagentos.fleet.playbooks.fetches import destinations

FAILED = 1
SHOWN = 5
"""Paths that are named when not all could be written."""


@click.command(
    name="files", help=tr("List the files that a job fetched from its nodes; with --to, write them below a directory.")
)
@click.argument("number", type=click.IntRange(1))
@click.option("--to", "to", type=click.Path(path_type=Path, file_okay=False), help=tr("The directory."))
@json_option
def files(number: int, to: Path | None, as_json: bool) -> None:
    """Below `--to` a file has the place that its task named, absolute ones without their first slash."""
    found = execute(_listing(number))
    if to is not None:
        execute(_write(number, [(file, _below(to, file.path)) for file in found]))
    if as_json:
        emit_json(found)
    elif to is None:
        rows = [[each.id, each.node, each.path, each.source, size(each.size), when(each.at)] for each in found]
        table(
            [tr("File"), tr("Node"), tr("Path"), tr("On the node"), tr("Size"), tr("Fetched")],
            rows,
            empty=tr("Job {job} has fetched no files.", job=number),
        )
    else:
        for each in found:
            emit(str(_below(to, each.path)))


def brought(job: Job, files: Mapping[str, bytes], directory: Path, code: int) -> int:
    """Write what a job fetched that has ended with `code`; `files` are those of its bundle. The exit code with that.

    After Ctrl-C nothing is written: the job goes on.
    """
    if code == INTERRUPTED or not (found := destinations(files, job.spec.extra_vars)):
        return code
    left = bring(job.summary.id, job.summary.nodes, directory, found)
    return code or (FAILED if left else 0)


def bring(job: int, nodes: Collection[str], directory: Path, destinations: Sequence[Destination]) -> int:
    """Write what a job fetched to where `destinations`, those of its playbook in `directory`, allow it.

    Returns how many files could not be written: that is said on standard error.
    """
    found = execute(_listing(job))
    placed: list[tuple[JobFile, Path]] = []
    refused: list[JobFile] = []
    for file in found:
        if any(each.allows(file.path, file.node, nodes) for each in destinations):
            placed.append((file, directory / file.path))
        else:
            refused.append(file)
    written = execute(_write(job, placed, within=directory)) if placed else 0
    if written:
        note(tr("{count} fetched files are written below {path}", count=written, path=_common(placed, directory)))
    if refused:
        names = ", ".join(file.path for file in refused[:SHOWN]) + (", ..." if len(refused) > SHOWN else "")
        note(
            tr(
                "{count} fetched files are not written, because the playbook does not say where by itself: {names}",
                count=len(refused),
                names=names,
            )
        )
        note(tr("hint: {hint}", hint=tr("`llmctl job files {job} --to DIR` writes them below DIR", job=job)))
    return len(refused)


async def _listing(job: int) -> list[JobFile]:
    async with connected() as client:
        return await api.listing(client, job)


async def _write(job: int, placed: Iterable[tuple[JobFile, Path]], *, within: Path | None = None) -> int:
    """Write files; those that are there already are left alone. How many were written."""
    count = 0
    async with connected() as client:
        for file, path in placed:
            _check(path, within, file)
            if _digest_of(path) != file.digest:
                content = await _content(client, job, file)
                try:
                    await asyncio.to_thread(_replace, path, content)
                except OSError as error:
                    message = tr("{path} cannot be written: {error}", path=path, error=error.strerror)
                    raise InvalidInput(message) from None
                count += 1
    return count


async def _content(client: ApiClient, job: int, file: JobFile) -> bytes:
    content = await api.content(client, job, file.id)
    if hashlib.sha256(content).hexdigest() != file.digest:
        raise Unavailable(tr("{path} came damaged: its checksum is another one", path=file.path))
    return content


def _below(directory: Path, path: str) -> Path:
    """Where a file goes with `--to`. Raises `InvalidInput` for a path that leads out of it."""
    parts = PurePosixPath(path.lstrip("/")).parts
    if ".." in parts or not parts:
        raise InvalidInput(tr("{path} leads out of the directory", path=repr(path)))
    return directory.joinpath(*parts)


def _check(path: Path, within: Path | None, file: JobFile) -> None:
    if within is None or file.path.startswith("/"):
        return
    if not path.parent.resolve().is_relative_to(within.resolve()):  # a link of the user's own
        raise InvalidInput(
            tr("{path} leads out of the playbook's directory", path=path),
            hint=tr("an absolute dest, or `llmctl job files {job} --to DIR`", job="N"),
        )


def _digest_of(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _replace(path: Path, content: bytes) -> None:
    """Write the file whole, with the rights of any new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name[:100]}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _common(placed: Sequence[tuple[JobFile, Path]], directory: Path) -> str:
    """The directory that all of them are in, as the user knows it."""
    common = Path(os.path.commonpath([path.parent for _, path in placed]))
    return os.path.relpath(common) if common.is_relative_to(directory) else str(common)

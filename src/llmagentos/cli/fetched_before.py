"""What is there already where a playbook's fetches go: without that, every file for an absolute path has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from llmagentos.api import nodes
from llmagentos.api.job_files import FETCHED_BEFORE, MAX_FILE_BYTES
from llmagentos.api.jobs import JobRequest
from llmagentos.cli.connect import connected, execute
from llmagentos.core.files import sha256_of
from llmagentos.fleet.playbooks.destinations import Destination
from llmagentos.fleet.playbooks.fetches import destinations

MOST_FILES = 200
"""Each node of the job gets the list."""
MOST_BYTES = 256 * 1024 * 1024
"""Of all files that are read for it."""


def with_fetched_before(request: JobRequest, files: Mapping[str, bytes]) -> JobRequest:
    """`request` with the SHA-256s of files at absolute destinations; `files` are those of its bundle.

    Not for a request with an idempotency key: sent again after its files came, it would be another one.
    """
    if request.idempotency_key is not None or FETCHED_BEFORE in request.extra_vars:
        return request
    found = [each for each in destinations(files, request.extra_vars) if each.dest.startswith("/")]
    before = known(found, execute(_names())) if found else {}
    if not before:
        return request
    variables, literal = {**request.extra_vars, FETCHED_BEFORE: before}, [*request.literal, FETCHED_BEFORE]
    return msgspec.structs.replace(request, extra_vars=variables, literal=literal)


async def _names() -> list[str]:
    async with connected() as client:
        return [node.name for node in await nodes.listing(client)]


def known(destinations: Iterable[Destination], hosts: Iterable[str]) -> dict[str, str]:
    """The SHA-256s of what is at the places of files of `hosts`, by path."""
    names = list(hosts)
    found: dict[str, str] = {}
    left = MOST_BYTES
    for path in dict.fromkeys(path for each in destinations for host in names for path in each.places(host)):
        if len(found) >= MOST_FILES:
            break
        try:
            size = Path(path).stat().st_size
            if size > min(left, MAX_FILE_BYTES) or not Path(path).is_file():
                continue
            found[path] = sha256_of(Path(path))
        except OSError:  # not there, or not to be read: then it counts as changed
            continue
        left -= size
    return found

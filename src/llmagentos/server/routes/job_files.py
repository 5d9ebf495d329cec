"""Files that a job's tasks fetched from nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath

import msgspec
from starlette.responses import FileResponse, Response

from llmagentos.api.job_files import MAX_FILE_BYTES, Fetched, JobFile
from llmagentos.api.jobs import Job, JobSummary
from llmagentos.core.errors import Forbidden, InvalidInput, NotFound
from llmagentos.security.identity import Identity, Permission
from llmagentos.server.endpoint import Call, Endpoint, Handler
from llmagentos.server.respond import read_bounded
from llmagentos.server.routes.jobs import job_number, node_name
from llmagentos.storage.job_files import JobFiles

AT_ONCE = 8
"""Files that are taken at the same time: each is in memory for a moment. Further nodes wait."""


def endpoints(
    files: JobFiles,
    check: Callable[[str, int, int], Awaitable[object]],
    known: Callable[[int], Awaitable[Job]],
    used: Callable[[int], Awaitable[bool]],
) -> list[Endpoint]:
    """`check` raises unless the node holds the job with the fencing token, `known` unless there is the job.

    `used` says whether the job's nodes use each other's files.
    """

    room = asyncio.Semaphore(AT_ONCE)

    async def keep(call: Call) -> None:
        async with room:
            await take(call, await read_bounded(call.request, MAX_FILE_BYTES))

    async def take(call: Call, content: bytes) -> None:
        node, job = node_name(call.identity), job_number(call)
        await check(node, job, int(call.number("fence", 0, most=2**53)))
        given: dict[str, object] = {name: call.query.get(name, "") for name in ("path", "source")}
        given |= {"digest": call.path["digest"], "size": len(content)}
        try:
            fetched = msgspec.convert(given, Fetched)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"this is no fetched file: {error}") from None
        await files.put(job, node, fetched, content)

    async def of_other_node(call: Call) -> Response:
        job = job_number(call)
        await check(node_name(call.identity), job, int(call.number("fence", 0, most=2**53)))
        path = await files.of_digest(job, call.path["digest"]) if await used(job) else None
        if path is None:
            raise NotFound("no node of this job has fetched such a file for the others")
        return FileResponse(path, media_type="application/octet-stream")

    return [
        Endpoint(
            "PUT",
            "/api/v1/nodes/self/queue/{id}/files/{digest}",
            Permission.NODE_WORK,
            keep,
            summary="Keep a file (the body, at most 32 MiB) that a claimed job fetched from the calling node",
        ),
        Endpoint(
            "GET",
            "/api/v1/nodes/self/queue/{id}/files/{digest}",
            Permission.NODE_WORK,
            of_other_node,
            summary="A file that another node of a claimed job fetched, when its plays use such",
        ),
        *_people(files, known),
    ]


def _people(files: JobFiles, known: Callable[[int], Awaitable[Job]]) -> list[Endpoint]:
    async def listing(call: Call) -> list[JobFile]:
        job = job_number(call)
        await known(job)
        return await files.listing(job)

    return [
        Endpoint(
            "GET",
            "/api/v1/jobs/{id}/files",
            Permission.JOBS_READ,
            listing,
            returns=list[JobFile],
            summary="The files that a job fetched",
        ),
        Endpoint(
            "GET",
            "/api/v1/jobs/{id}/files/{file}",
            Permission.JOBS_READ,
            _download(files, known),
            summary="The bytes of one of them",
        ),
    ]


def page(files: JobFiles, known: Callable[[int], Awaitable[Job]]) -> Endpoint:
    """The same for a browser with a session of the console."""
    return Endpoint("GET", "/jobs/{id}/files/{file}", Permission.JOBS_READ, _download(files, known))


def may_download(who: Identity, job: JobSummary) -> bool:
    """What was fetched may be secret: it is for who made the job, and for who could fetch it again."""
    return who.may(Permission.JOBS_WRITE) or job.created_by == str(who)


def _download(files: JobFiles, known: Callable[[int], Awaitable[Job]]) -> Handler:
    async def download(call: Call) -> Response:
        text = call.path["file"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
        job = (await known(job_number(call))).summary
        if not may_download(call.identity, job):
            raise Forbidden(
                f"{call.identity} may not read what job {job.id} fetched: whoever made the job may, and operators"
            )
        found = await files.find(job.id, number)
        if found is None:
            raise NotFound("this file is not there, or no longer kept", hint="`llmctl job files N` lists them")
        file, path = found
        name = PurePosixPath(file.path).name or f"file-{number}"
        return FileResponse(path, filename=name, media_type="application/octet-stream", headers=_NOT_SHOWN)

    return download


_NOT_SHOWN = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox", "Cache-Control": "no-store"}

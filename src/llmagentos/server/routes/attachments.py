"""Files for requests: uploaded by their digest before the run that they go with."""

from __future__ import annotations

from llmagentos.agents.attachments import Attachments
from llmagentos.api.runs import Attachment
from llmagentos.core.errors import InvalidInput
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint

_MOST_NAME = 200


def endpoints(attachments: Attachments, *, most: int) -> list[Endpoint]:
    """`most` is the largest file that is taken, in bytes."""

    async def put(call: Call) -> Attachment:
        name = call.query.get("name", "file")
        if not name.isprintable() or not 0 < len(name) <= _MOST_NAME:
            raise InvalidInput(f"{name[:80]!r} cannot be the name of a file")
        return await attachments.keep(str(call.identity), call.path["digest"], name, call.body)

    return [
        Endpoint(
            "PUT",
            "/api/v1/attachments/{digest}",
            Permission.RUNS_WRITE,
            put,
            body=bytes,
            returns=Attachment,
            summary="Upload a file to ask with, by its SHA-256 (`name`): text, or a picture",
            max_body=most,
        )
    ]

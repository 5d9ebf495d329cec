"""Errors on the wire: problem documents (RFC 9457), both ways."""

from __future__ import annotations

from typing import Any

import msgspec

from llmagentos.core import errors
from llmagentos.core.errors import LLMAgentOSError

CONTENT_TYPE = "application/problem+json"
_PREFIX = "urn:llmagentos:problem:"
# Members that are arguments of their own, or that no foreign document may set.
_MEMBERS = frozenset({"type", "title", "status", "detail", "hint", "self", "message"})


def _tree(root: type[LLMAgentOSError]) -> dict[str, type[LLMAgentOSError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        for code, kind in _tree(child).items():
            found.setdefault(code, kind)
    return found


def encode(error: LLMAgentOSError) -> bytes:
    """The problem document of `error`, as JSON."""
    document: dict[str, Any] = {
        "type": _PREFIX + error.code,
        "title": error.code.replace("_", " "),
        "status": error.status,
        "detail": error.message,
    }
    if error.hint:
        document["hint"] = error.hint
    return msgspec.json.encode(document | error.details)


def decode(status: int, body: bytes) -> LLMAgentOSError:
    """The error a response stands for: of its own class when the code is known here, else of its status's."""
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        document = {"detail": body[:500].decode("utf-8", "replace") or f"HTTP status {status}"}
    if isinstance(told := document.get("error"), dict):  # OpenAI's shape, under /v1/
        document = {"type": str(told.get("code")), "detail": told.get("message")}
    named = str(document.get("type", ""))
    code = named.removeprefix(_PREFIX)
    own = _tree(LLMAgentOSError).get(code)
    kind = own or _by_status(status)
    details = {k: v for k, v in document.items() if k not in _MEMBERS}
    if issubclass(kind, errors.TooManyRequests):
        wait = details.get("retry_after")
        details["retry_after"] = float(wait) if isinstance(wait, int | float) else 1.0
    hint = document.get("hint")
    error = kind(str(document.get("detail", code)), hint=str(hint) if hint else None, **details)
    if own is None and named.startswith(_PREFIX):  # of a room that this program has no need of
        vars(error).update(code=code, status=status)
    return error


def _by_status(status: int) -> type[LLMAgentOSError]:
    known: dict[int, type[LLMAgentOSError]] = {
        401: errors.Unauthenticated,
        403: errors.Forbidden,
        404: errors.NotFound,
        409: errors.Conflict,
        413: errors.TooLarge,
        429: errors.TooManyRequests,
        502: errors.ServiceError,
        503: errors.Unavailable,
        504: errors.DeadlineExceeded,
        507: errors.Unavailable,
    }
    return known.get(status) or (errors.InvalidInput if 400 <= status < 500 else errors.LLMAgentOSError)

"""Runs an endpoint: identity, permission, bounded and typed body, answer, errors as problem documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from llmagentos.api import problem
from llmagentos.core import log, metrics, tracing
from llmagentos.core.errors import (
    CallerError,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    LLMAgentOSError,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from llmagentos.core.ids import new_id
from llmagentos.security.identity import Identity
from llmagentos.server.auth import Authenticator
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.storage.database import as_storage_error

BODY_TIMEOUT_S = 30.0
Audit = Callable[[Identity, Endpoint, str, int], Awaitable[None]]
Errors = Callable[[Request, LLMAgentOSError, Identity | None], Response]

_log = log.get(__name__)


class Responder:
    """Answers requests to endpoints.

    `audit` is told of every change that a person makes; `max_body` bytes are read where an endpoint sets no limit;
    `errors` makes the answer of an error, problem documents when there is none.
    """

    def __init__(
        self, authenticator: Authenticator, audit: Audit, *, max_body: int, errors: Errors | None = None
    ) -> None:
        self._max_body = max_body
        self._errors = errors or (lambda request, error, _: error_response(request, error))
        self._authenticator = authenticator
        self._audit = audit

    async def respond(self, request: Request, endpoint: Endpoint | None, *, allowed: tuple[str, ...] = ()) -> Response:
        """The answer of `endpoint`; without one, why there is none (only to those with an identity)."""
        begun = time.perf_counter()
        request_id = new_id()
        route = endpoint.path if endpoint is not None else "none"
        identity: Identity | None = None
        with (
            log.bind(request_id=request_id),
            tracing.span(f"{request.method} {route}", kind=tracing.SERVER, parent=request.headers, http__route=route),
        ):
            try:
                identity = await self._identity(request)
                response = await self._answer(request, endpoint, identity, allowed)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Exception as error:  # the loop around every handler: nothing may escape as a traceback
                response = self._errors(request, known(error), identity)
            response.headers["X-Request-Id"] = request_id
            elapsed = time.perf_counter() - begun
            metrics.HTTP_REQUESTS.labels(route, request.method, str(response.status_code)).observe(elapsed)
            _log.debug(
                "request",
                method=request.method,
                path=request.url.path,
                status=response.status_code,
                ms=round(elapsed * 1000, 1),
                identity=str(identity),
            )
            if endpoint is not None and identity is not None and endpoint.audited:
                await self._record(identity, endpoint, request.url.path, response.status_code)
        return response

    async def _record(self, identity: Identity, endpoint: Endpoint, path: str, status: int) -> None:
        try:
            await self._audit(identity, endpoint, path, status)
        except Exception as error:  # what was done is done: its caller must not be told otherwise
            _log.error("audit record lost", identity=str(identity), path=path, status=status, error=str(error))

    async def _identity(self, request: Request) -> Identity:
        identity = await self._authenticator.identify(request, request.method)
        if identity is None:
            raise Unauthenticated(
                "this needs an identity: no valid token was sent",
                hint="Authorization: Bearer TOKEN; `llmctl token create` makes one",
            )
        return identity

    async def _answer(
        self, request: Request, endpoint: Endpoint | None, identity: Identity, allowed: tuple[str, ...]
    ) -> Response:
        if endpoint is None:
            raise no_such_route(request, allowed)
        if not identity.may(endpoint.allow):
            raise Forbidden(
                f"{identity} may not do this: it needs the permission {endpoint.allow.value}",
                hint="use a token of a kind that may; SECURITY.md has the table",
            )
        body = await _body(request, endpoint, endpoint.max_body or self._max_body)
        call = Call(identity, request.path_params, request.query_params, body, request)
        return _encode(await endpoint.handler(call))


async def _body(request: Request, endpoint: Endpoint, most: int) -> Any:
    if endpoint.body is None:
        return None
    content = await read_bounded(request, most)
    if endpoint.body is bytes:
        return content
    try:
        return msgspec.json.decode(content, type=endpoint.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the request body does not fit: {error}", hint="see /api/v1/openapi.json") from None
    except RecursionError:
        raise InvalidInput("the request body is nested too deep") from None


async def read_bounded(request: Request, most: int) -> bytes:
    """The request's body. Raises `TooLarge` before reading one over `most` bytes, `DeadlineExceeded` for a slow one."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise _too_large(most)
                chunks.append(chunk)
    except TimeoutError:
        raise DeadlineExceeded(f"the request body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None
    return b"".join(chunks)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the request body is over {most} bytes", hint="server.limits in llmagentos.yaml", limit=most)


def _encode(value: Any) -> Response:
    if isinstance(value, Response):
        return value
    if value is None:
        return Response(status_code=204)
    return Response(msgspec.json.encode(value), media_type="application/json")


def no_such_route(request: Request, allowed: tuple[str, ...]) -> CallerError:
    """Why nothing answers: no such path, or not for this method."""
    path = request.url.path
    if not allowed:
        return NotFound(f"there is no {path}", hint="see /api/v1/openapi.json")
    return MethodNotAllowed(f"{path} does not take {request.method}", allowed=list(allowed))


def known(error: Exception) -> LLMAgentOSError:
    """`error` as one of ours; what was not expected is logged, and no more is said of it."""
    if isinstance(error, LLMAgentOSError):
        return error
    if (storage := as_storage_error(error)) is not None:
        _log.error("storage", error=str(error))
        return storage
    _log.error("unexpected", exc_info=error)
    request_id = log.bound("request_id")
    return LLMAgentOSError(
        "an unexpected error in the server", hint="the server's log has the details", request_id=request_id
    )


def error_response(request: Request, error: LLMAgentOSError) -> Response:
    """`error` as a problem document, or in OpenAI's shape under /v1/."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.details["allowed"])
    if isinstance(error, TooLarge | DeadlineExceeded):
        headers["Connection"] = "close"  # what is still unread of the request must not be taken for the next one
    if (retry_after := error.details.get("retry_after")) is not None:
        headers["Retry-After"] = str(max(1, round(retry_after)))
    if request.url.path.startswith("/v1/"):
        return Response(openai_shape(error), error.status, headers=headers, media_type="application/json")
    return Response(problem.encode(error), error.status, headers=headers, media_type=problem.CONTENT_TYPE)


def openai_shape(error: LLMAgentOSError) -> bytes:
    """`error` as OpenAI's API says it."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    param = error.details.get("param")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": error.code}})

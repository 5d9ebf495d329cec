"""One error tree for the whole system, split by who has to act.

    LLMAgentOSError
    ├── CallerError          the caller must change the request     4xx, exit 2
    │   ├── InvalidInput         400  malformed or ill-typed input
    │   ├── Unauthenticated      401  no identity, or one that is not valid
    │   ├── Forbidden            403  a valid identity without the permission
    │   ├── NotFound             404  no such thing (with the nearest that exists)
    │   ├── MethodNotAllowed     405  the thing exists, but not for this HTTP method
    │   ├── Conflict             409  the thing is in a state that does not allow this
    │   ├── TooLarge             413  body, header or result over its limit
    │   └── TooManyRequests      429  admission refused; `retry_after` says when
    ├── ModelError           the model or its engine failed         502, exit 1
    ├── ServiceError         a called service method failed         502, exit 1
    └── OperatorError        whoever runs the system must act       5xx, exit 1
        ├── ConfigError          the configuration is wrong         exit 2
        ├── Unavailable          503  something needed is not running or not reachable
        └── DeadlineExceeded     504  no answer before the deadline

Rooms subclass the leaf that fits and set `code`. A message says what is wrong, shows the value
(`!r`), and `hint` says what to do next. On the wire an error is a problem document (RFC 9457).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class LLMAgentOSError(Exception):
    """Root of the tree. `details` are extra members of the problem document."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class CallerError(LLMAgentOSError):
    """The request has to change before it can succeed."""

    code = "bad_request"
    status = 400
    exit_code = 2


class InvalidInput(CallerError):
    """Malformed or ill-typed input."""

    code = "invalid_input"


class Unauthenticated(CallerError):
    """No identity, or one that is not (or no longer) valid."""

    code = "unauthenticated"
    status = 401


class Forbidden(CallerError):
    """A valid identity without the needed permission."""

    code = "forbidden"
    status = 403


class NotFound(CallerError):
    """No such thing."""

    code = "not_found"
    status = 404


class MethodNotAllowed(CallerError):
    """The path exists, but not for this HTTP method."""

    code = "method_not_allowed"
    status = 405


class Conflict(CallerError):
    """The thing is in a state that does not allow this."""

    code = "conflict"
    status = 409


class TooLarge(CallerError):
    """A body, header or result over its limit."""

    code = "too_large"
    status = 413


class TooManyRequests(CallerError):
    """Admission refused for now; `retry_after` is in seconds."""

    code = "too_many_requests"
    status = 429
    exit_code = 1

    def __init__(self, message: str, *, retry_after: float, hint: str | None = None, **details: Any) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after, **details)
        self.retry_after = retry_after


class ModelError(LLMAgentOSError):
    """The model or its engine failed or answered nonsense."""

    code = "model_error"
    status = 502


class ServiceError(LLMAgentOSError):
    """A called service method failed; `remote_type` is the exception's type over there."""

    code = "service_error"
    status = 502

    def __init__(
        self, message: str, *, remote_type: str | None = None, hint: str | None = None, **details: Any
    ) -> None:
        if remote_type is not None:
            details["remote_type"] = remote_type
        super().__init__(message, hint=hint, **details)
        self.remote_type = remote_type


class OperatorError(LLMAgentOSError):
    """Whoever runs the system has to act."""

    code = "operator_error"


class ConfigError(OperatorError):
    """The configuration is wrong; the message starts with file:line where one is known."""

    code = "config_error"
    exit_code = 2


class Unavailable(OperatorError):
    """Something needed is not running or cannot be reached."""

    code = "unavailable"
    status = 503


class DeadlineExceeded(OperatorError):
    """No answer before the deadline."""

    code = "deadline_exceeded"
    status = 504


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, for "did you mean" hints; None when none is close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None

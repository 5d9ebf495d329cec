"""What can go wrong with a call, as leaves of the one error tree (`core.errors`).

A failure of the method itself arrives as `core.errors.ServiceError` with the remote type.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmagentos.core.errors import InvalidInput, NotFound, TooManyRequests, Unavailable, nearest


class UnknownMethod(NotFound):
    """The service has no such method."""

    code = "unknown_method"


class UnknownService(NotFound):
    """This module has no such service."""

    code = "unknown_service"


class BadArguments(InvalidInput):
    """The arguments do not fit the method's parameters."""

    code = "bad_arguments"


class NoInstance(Unavailable):
    """No instance of the service is registered."""

    code = "no_instance"


class CallInterrupted(Unavailable):
    """The instance was lost during the call, and the method must not be repeated blindly."""

    code = "call_interrupted"


class Overloaded(TooManyRequests):
    """The instance has as many calls as it takes; this one was not begun."""

    code = "overloaded"


def unknown_method(service: str, method: str, known: Iterable[str]) -> UnknownMethod:
    """The error that names the methods there are, and the nearest."""
    names = sorted(known)
    return UnknownMethod(
        f"the service {service!r} has no method {method!r}; it has {', '.join(names) or 'none'}",
        hint=_did_you_mean(method, names),
        methods=names,
    )


def unknown_service(module: str, service: str, known: Iterable[str]) -> UnknownService:
    """The error that names the services there are, and the nearest."""
    names = sorted(known)
    return UnknownService(
        f"the module {module!r} has no service {service!r}; it has {', '.join(names) or 'none'}",
        hint=_did_you_mean(service, names),
        services=names,
    )


def no_instance(service: str, known: Iterable[str]) -> NoInstance:
    """The error that names the services there are, and the nearest."""
    names = sorted(known)
    return NoInstance(
        f"no instance of the service {service!r} is registered",
        hint=_did_you_mean(service, names)
        or f"is its module running? registered are: {', '.join(names[:20]) or 'none'}",
    )


def _did_you_mean(word: str, known: list[str]) -> str | None:
    close = nearest(word, known)
    return f"did you mean {close!r}?" if close else None

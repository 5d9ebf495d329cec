"""`Service`: a class whose public methods others call by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from llmagentos.api.registry import MethodSpec, ServiceSpec
from llmagentos.core.errors import ConfigError
from llmagentos.services import signature

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__llmagentos_idempotent__"
_ENCODER = msgspec.json.Encoder(enc_hook=signature.to_json)


class Service:
    """Base of services. Every method whose name does not begin with `_` can be called.

    Methods are plain (they run in a thread), `async` (they run on the module's event loop and must not
    block it), or generators of either kind (their items are streamed). Parameters are named; their type
    hints are checked, and what arrives is converted to them. An exception arrives at the caller as a
    `ServiceError` with its type's name and its message.
    """


def idempotent(method: F) -> F:
    """Marks a method that may be carried out twice without harm: a caller whose instance dies repeats it elsewhere."""
    setattr(method, _MARK, True)
    return method


Arguments = tuple[list[Any], dict[str, Any]]
"""Positional and named arguments."""


class Method:
    """One callable method of a service object."""

    def __init__(self, service: str, name: str, function: Callable[..., Any]) -> None:
        self.service = service
        self.name = name
        self.function = function
        where = f"{service}.{name}"
        hints = signature.hints_of(where, function)
        result = hints.pop("return", Any)
        self.parameters = signature.Parameters(where, function, hints)
        self.streams = signature.streams(function, result)
        plain = inspect.unwrap(function)
        self.is_async = inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)
        self.spec = MethodSpec(
            name=name,
            doc=inspect.getdoc(function) or "",
            idempotent=bool(getattr(function, _MARK, False)),
            streams=self.streams,
            parameters=self.parameters.schema(),
            returns=signature.returns_schema(where, result, stream=self.streams),
        )

    def encode(self, value: Any) -> bytes:
        """A result as JSON. Raises `TypeError` for one that has no such form."""
        return _ENCODER.encode(value)

    def arguments(self, body: bytes) -> Arguments:
        """What to call `function` with. Raises `BadArguments`."""
        return self.parameters.decode(body)


def methods_of(service: str, implementation: object) -> dict[str, Method]:
    """The callable methods of an object, by name. Raises `ConfigError` for one that cannot be offered."""
    found = {}
    for name, attribute in inspect.getmembers_static(type(implementation)):
        if name.startswith("_") or isinstance(attribute, property | type) or hasattr(Service, name):
            continue
        if callable(function := getattr(implementation, name)):
            found[name] = Method(service, name, function)
    if not found:
        raise ConfigError(f"the service {service!r} has no method to call", hint="add a method without leading `_`")
    return found


def spec_of(service: str, implementation: object, methods: dict[str, Method]) -> ServiceSpec:
    """What the registry is told of a service."""
    own = type(implementation).__doc__ if type(implementation) is not Service else None
    return ServiceSpec(service, inspect.cleandoc(own or ""), [method.spec for method in methods.values()])

"""Tools: Python functions marked with `@tool`, and methods of services, behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, overload

import msgspec

from llmagentos.api.agents import AgentSpec, ToolInfo, ToolOptions, ToolUse
from llmagentos.api.registry import MethodSpec
from llmagentos.core.errors import ConfigError, Conflict, LLMAgentOSError, OperatorError, ServiceError, TooManyRequests
from llmagentos.services.context import serving_run
from llmagentos.services.rpc.threads import Escaped, NoThread, Threads
from llmagentos.services.service import Method

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__llmagentos_tool__"
PLAIN = ToolOptions()
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Services(Protocol):
    """Calls to services, as `services` provides them."""

    async def call(
        self,
        service: str,
        method: str,
        arguments: Mapping[str, Any],
        /,
        *,
        timeout: float | None = None,
        run_id: str | None = None,
    ) -> Any: ...
    async def describe(self, service: str, method: str) -> MethodSpec: ...


@dataclass(frozen=True, slots=True)
class CalledBy:
    """For what a tool is called: after a crash the same call comes again with the same two."""

    run: str
    call_id: str
    again: bool = False
    """Whether it was begun before, by a host that did not see its end."""


class OutcomeUnknown(OperatorError):
    """An interrupted call whose outcome nobody knows, and that must not be repeated."""

    code = "outcome_unknown"

    @classmethod
    def of(cls, name: str) -> OutcomeUnknown:
        """For a call of the tool `name`."""
        return cls(
            f"the call of {name} was interrupted: whether it was carried out is not known, so it is not repeated"
        )


class ToolSuspended(Conflict):
    """The run was paused while the tool only waited for something else: it is called again when the run goes on."""

    code = "tool_suspended"


Invoke = Callable[[Mapping[str, Any], float, CalledBy], Awaitable[Any]]
"""`await invoke(arguments, timeout, by)` -> the result as plain JSON values."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that an agent may call."""

    name: str
    doc: str
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments."""
    idempotent: bool
    """Calling it twice does the same as once, so an interrupted call is simply made again."""
    invoke: Invoke = field(repr=False, compare=False)
    examples: tuple[str, ...] = ()
    options: ToolOptions = PLAIN
    finds: bool = False
    """Called again it goes on with what the interrupted call began, or raises `OutcomeUnknown`."""

    def under(self, options: ToolOptions) -> Tool:
        """The same with `options`. Raises `ConfigError` for retries of what must not be repeated."""
        idempotent = self.idempotent if options.idempotent is None else options.idempotent
        if options.retries and not idempotent:
            raise ConfigError(
                f"the tool {self.name!r} has retries={options.retries}, but a call of it must not be repeated",
                hint="`idempotent: true` says that it may",
            )
        return replace(self, idempotent=idempotent, options=options)

    @property
    def text_parameter(self) -> str | None:
        """The first parameter that takes text."""
        for name, schema in self.parameters.get("properties", {}).items():
            kinds = [schema, *schema.get("anyOf", ())]
            if not schema or any("string" in (kind.get("type"), *_listed(kind.get("type"))) for kind in kinds):
                return str(name)
        return None


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


@dataclass(frozen=True, slots=True)
class _Mark:
    name: str
    idempotent: bool = False
    examples: tuple[str, ...] = ()
    options: ToolOptions = PLAIN


@overload
def tool(function: F) -> F: ...
@overload
def tool(
    *, name: str | None = None, idempotent: bool = False, examples: Sequence[str] = (), **options: Any
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    *,
    name: str | None = None,
    idempotent: bool = False,
    examples: Sequence[str] = (),
    **options: Any,
) -> F | Callable[[F], F]:
    """Marks a function as a tool: its type hints become the schema, its docstring tells the model what it does.

    `idempotent` says that an interrupted call may be made again. `examples` are requests that it is for
    (they guide the choice by embedding). `options` are those of `ToolOptions`: `approval="required"`,
    `timeout=30`, `retries=2`, `allow=["operator:*"]` and so on. Raises `ConfigError` for one that is none.
    """

    def mark(marked: F) -> F:
        called = name or marked.__name__
        setattr(marked, _MARK, _Mark(called, idempotent, tuple(examples), _options(called, options)))
        return marked

    return mark(function) if function is not None else mark


def function_tool(function: Callable[..., Any]) -> Tool:
    """The tool of a Python function. Raises `ConfigError` for one that cannot be called by name with JSON."""
    mark = getattr(function, _MARK, None) or _Mark(function.__name__)
    method = Method("tool", mark.name, function)
    if method.streams:
        raise ConfigError(f"the tool {mark.name!r} is a generator", hint="return a list")

    async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
        positional, named = method.arguments(msgspec.json.encode(arguments))
        with serving_run(by.run):  # services that the function calls know for which run
            async with asyncio.timeout(timeout):
                result = await _result(method, partial(function, *positional, **named))
        return msgspec.json.decode(method.encode(result))

    idempotent = mark.idempotent or method.spec.idempotent
    made = Tool(mark.name, method.spec.doc, method.spec.parameters, idempotent, invoke, mark.examples)
    return made.under(mark.options)


_THREADS = Threads(threads=32, waiting=512)


async def _result(method: Method, bound: Callable[[], Any]) -> Any:
    """What a tool's function returns. What it raises is an error of the tool, also `sys.exit`, which ends nothing."""
    try:
        return await (bound() if method.is_async else _THREADS.run(bound))
    except NoThread:
        raise TooManyRequests("all threads for tools are busy, and enough calls wait", retry_after=1.0) from None
    except Escaped as escaped:
        raise _raised(escaped.error) from None
    except (SystemExit, KeyboardInterrupt) as error:
        raise _raised(error) from None
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        raise _raised(error) from None  # it awaited what somebody else cancelled


def _raised(error: BaseException) -> ServiceError:
    name = type(error).__name__
    return ServiceError(str(error) or name, remote_type=name)


def _options(name: str, given: Mapping[str, Any]) -> ToolOptions:
    try:
        return msgspec.convert(dict(given), ToolOptions)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the tool {name!r}: {error}") from None


async def service_tool(
    services: Services, where: str, examples: Sequence[str] = (), options: ToolOptions = PLAIN
) -> Tool:
    """The tool of `service.method`. Raises `NotFound` or `Unavailable` when nobody offers it now, `ConfigError`."""
    service, _, method = where.rpartition(".")
    spec = await services.describe(service, method)
    if spec.streams:
        raise ConfigError(f"the tool {where!r} streams", hint="use a method that returns a list")

    async def invoke(arguments: Mapping[str, Any], timeout: float, by: CalledBy) -> Any:
        return await services.call(service, method, arguments, timeout=timeout, run_id=by.run)

    return Tool(where, spec.doc, spec.parameters, spec.idempotent, invoke, tuple(examples)).under(options)


@dataclass(frozen=True, slots=True)
class Toolset:
    """What one agent may call, resolved."""

    tools: tuple[Tool, ...]
    ground: Tool | None
    forbidden: frozenset[str] = frozenset()
    """Names of tools that the agent has, but not for the run's caller."""
    hidden: tuple[Tool, ...] = ()
    """Called by the loop itself; the model is not told of them."""

    def get(self, name: str) -> Tool | None:
        """The tool of this name."""
        for known in (*self.tools, *self.hidden, *([self.ground] if self.ground else [])):
            if known.name == name:
                return known
        return None


Source = Callable[[ToolUse], Awaitable[Sequence[Tool]]]
"""The tools that an entry stands for. Raises `NotFound`, `Unavailable` or `ConfigError`."""


async def resolve(
    spec: AgentSpec, functions: Mapping[str, Tool], services: Services, sources: Mapping[str, Source] = NOTHING
) -> Toolset:
    """The agent's tools, with what those who offer them say of them now; `sources` by kind (`ToolUse.kind`)."""
    found = [tool for entry in spec.tools for tool in await _offered(entry, services, sources)]
    ground: Tool | None = None
    if spec.ground is not None:
        ground = functions.get(spec.ground) or await service_tool(services, spec.ground)
    offered = tuple(known for name, known in functions.items() if name != spec.ground)
    return Toolset(_named_once((*offered, *found)), ground)


async def described(
    spec: AgentSpec, functions: Sequence[str], services: Services, sources: Mapping[str, Source] = NOTHING
) -> list[ToolInfo]:
    """What the agent may call, each with where it comes from, or why it is not there now."""
    found = [ToolInfo(name, "function") for name in functions]
    grounds = [ToolUse(spec.ground)] if spec.ground is not None and "." in spec.ground else []
    for entry in [*grounds, *spec.tools]:
        try:
            offered = await _offered(entry, services, sources)
        except LLMAgentOSError as error:
            told = error.message + (f" ({error.hint})" if error.hint else "")
            found.append(ToolInfo(entry.name or entry.source, entry.source, error=told))
            continue
        for tool in offered:
            told = tool.doc.strip()
            shown = dict(tool.parameters)
            options = ToolOptions(**{name: getattr(tool.options, name) for name in ToolOptions.__struct_fields__})
            found.append(ToolInfo(tool.name, entry.source, told, shown, tool.idempotent, options))
    return found


async def _offered(entry: ToolUse, services: Services, sources: Mapping[str, Source]) -> Sequence[Tool]:
    if entry.service is not None:
        return [await service_tool(services, entry.service, entry.examples, entry)]
    source = sources.get(entry.kind)
    if source is None:
        raise ConfigError(f"nobody here offers the tool {entry.source}")
    return [tool.under(entry) for tool in await source(entry)]


def _named_once(tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    names: set[str] = set()
    for tool in tools:
        if tool.name in names:
            raise ConfigError(f"two tools are called {tool.name!r}", hint="`name:` or `only:` keeps them apart")
        names.add(tool.name)
    return tools

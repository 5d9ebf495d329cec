"""What an error of a call says about the engine, and so what becomes of the call."""

from __future__ import annotations

from llmagentos.core.errors import LLMAgentOSError, ModelError, Unavailable
from llmagentos.kernel.calls import Outcome
from llmagentos.kernel.routing import Failure
from llmagentos.llm.engines.engine import (
    EngineBusy,
    EngineRestarting,
    EngineStalled,
    ModelLoading,
    QuotaExhausted,
)


class BreakerOpen(Unavailable):
    """No call is sent to the model for now, because too many of the last ones failed."""

    code = "breaker_open"


def failure(error: BaseException) -> Failure | None:
    """Which kind of fallback may take the call; None when another model would not help or must not be asked."""
    if isinstance(error, EngineBusy | QuotaExhausted):
        return "quota"
    if isinstance(error, EngineStalled):
        return "timeout"
    return "error" if isinstance(error, ModelError | Unavailable) else None


def broken(error: BaseException) -> bool:
    """Whether it is the engine's fault, and calls to it may all fail so."""
    if isinstance(error, EngineBusy):
        return error.down
    return isinstance(error, ModelError | Unavailable) and not isinstance(error, ModelLoading)


def refused(error: BaseException) -> Outcome | None:
    """The outcome of a call that the engine refused for lack of capacity; None for any other error."""
    if not isinstance(error, EngineBusy | QuotaExhausted):
        return None
    return Outcome(0, 0, overloaded=isinstance(error, EngineBusy), retry_after=error.retry_after)


def retry_after(error: LLMAgentOSError) -> float | None:
    """Seconds after which the same call may be sent again to the same model; None when that makes no sense."""
    if isinstance(error, EngineRestarting):
        return 0.0  # it has no slots until it is there again
    return error.retry_after if isinstance(error, EngineBusy) else None

"""Metrics of runs, from what their logs say."""

from __future__ import annotations

from collections.abc import Sequence

from llmagentos.agents.log import Log
from llmagentos.api.runs import RunEvent
from llmagentos.core import metrics


def measure(_run: str, state: Log, _events: Sequence[RunEvent]) -> None:
    """Count a run that has ended."""
    if state.ended_at is None or state.state is None:
        return
    agent = state.request.agent
    if state.answer is not None and state.answer.replaced is not None:
        metrics.ANSWERS_REPLACED.labels(agent).inc()
    metrics.RUNS.labels(agent, state.state.value).inc()
    metrics.RUN_SECONDS.labels(agent, state.state.value).observe(
        max(0.0, state.ended_at - (state.started_at or state.ended_at))
    )

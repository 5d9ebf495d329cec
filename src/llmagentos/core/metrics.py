"""Every metric of the system, by name, in one place.

Rooms import the object they feed; `/metrics` renders `REGISTRY`. Names follow the Prometheus
conventions (unit suffix, `_total` for counters) with the prefix `llmagentos_`. Label values must be
bounded: never an id, a path with ids, or user text.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

REGISTRY = CollectorRegistry()
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _FAST) -> Histogram:
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


def render() -> bytes:
    """All metrics in the Prometheus text format 0.0.4."""
    return generate_latest(REGISTRY)


# --- server -----------------------------------------------------------------------------------
HTTP_REQUESTS = _histogram(
    "llmagentos_http_request_duration_seconds",
    "API requests of the server by route template, method and status.",
    "route",
    "method",
    "status",
)
# --- services ---------------------------------------------------------------------------------
# --- llm --------------------------------------------------------------------------------------
# --- agents -----------------------------------------------------------------------------------
# --- fleet ------------------------------------------------------------------------------------

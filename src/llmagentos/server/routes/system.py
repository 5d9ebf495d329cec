"""Health, metrics, the server's own facts, and the API's document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from llmagentos.api.system import Health, SystemInfo
from llmagentos.core import metrics
from llmagentos.security.identity import Identity, Permission
from llmagentos.server.endpoint import Call, Endpoint


def endpoints(
    *,
    ping: Callable[[], Awaitable[None]],
    info: Callable[[Identity], SystemInfo],
    document: Callable[[], dict[str, Any]],
) -> list[Endpoint]:
    """`ping` reaches the database, `info` describes the server to a caller, `document` is the OpenAPI document."""

    async def health(_: Call) -> Health:
        await ping()
        return Health("ok")

    async def system(call: Call) -> SystemInfo:
        return info(call.identity)

    async def render(_: Call) -> Response:
        return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)

    async def openapi(_: Call) -> dict[str, Any]:
        return document()

    return [
        Endpoint(
            "GET", "/health", Permission.METRICS_READ, health, returns=Health, summary="Whether the server can work"
        ),
        Endpoint("GET", "/metrics", Permission.METRICS_READ, render, summary="Metrics, Prometheus text format"),
        Endpoint(
            "GET", "/api/v1/system", Permission.SYSTEM_READ, system, returns=SystemInfo, summary="Facts of the server"
        ),
        Endpoint("GET", "/api/v1/openapi.json", Permission.SYSTEM_READ, openapi, summary="This document"),
    ]

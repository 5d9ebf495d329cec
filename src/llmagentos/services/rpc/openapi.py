"""A module's OpenAPI 3.1 document: one path a method."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmagentos.api.registry import MethodSpec, ServiceSpec


def document(module: str, version: str, services: Sequence[ServiceSpec]) -> dict[str, Any]:
    """The document of a module's services."""
    return {
        "openapi": "3.1.0",
        "info": {"title": module, "version": version},
        "security": [{"bearer": []}],
        "paths": {
            f"/services/{service.name}/{method.name}": {"post": _operation(service, method)}
            for service in services
            for method in service.methods
        },
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}},
    }


def _operation(service: ServiceSpec, method: MethodSpec) -> dict[str, Any]:
    path = f"/services/{service.name}/{method.name}".replace("/", "~1")  # RFC 6901
    operation = f"#/paths/{path}/post"
    body = _placed(method.parameters, f"{operation}/requestBody/content/application~1json/schema")
    kind = "application/x-ndjson" if method.streams else "application/json"
    result = f"{operation}/responses/200/content/{kind.replace('/', '~1')}/schema"
    schema = _placed(method.returns, f"{result}/properties/item" if method.streams else result)
    if method.streams:
        schema = {"type": "object", "properties": {"item": schema, "end": {"type": "boolean"}, "error": {}}}
    return {
        "operationId": f"{service.name}.{method.name}",
        "summary": method.doc.partition("\n")[0],
        "description": method.doc,
        "tags": [service.name],
        "x-idempotent": method.idempotent,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "The result", "content": {kind: {"schema": schema}}},
            "default": {"description": "A problem document", "content": {"application/problem+json": {}}},
        },
    }


def _placed(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """`schema` as a part of a larger document: its references are relative to that document's root."""
    placed: dict[str, Any] = json.loads(json.dumps(schema).replace('"#/$defs/', f'"{where}/$defs/'))
    return placed

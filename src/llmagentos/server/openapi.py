"""The API's OpenAPI 3.1 document, out of the endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llmagentos.server.endpoint import Endpoint

_REF = "#/components/schemas/{name}"


def document(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    """The document for `endpoints`; every answer may also be a problem document (RFC 9457)."""
    types = [kind for e in endpoints for kind in (e.body, e.returns) if kind is not None and kind is not bytes]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = re.sub(r"{(\w+):\w+}", r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLMAgentOS", "version": version},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "x-permission": endpoint.allow.value,
        "responses": {
            _success(endpoint): {"description": "Success", **_content(endpoint, schemas)},
            "default": {"description": "A problem document", "content": {"application/problem+json": {}}},
        },
    }
    if names := re.findall(r"{(\w+)}", path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if endpoint.body is not None:
        raw = endpoint.body is bytes
        content = {"application/octet-stream": {}} if raw else _json(endpoint.body, schemas)
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _success(endpoint: Endpoint) -> str:
    silent = endpoint.returns is None and not endpoint.streams and endpoint.method in ("DELETE", "PUT")
    return "204" if silent else "200"


def _content(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    if endpoint.streams:
        return {"content": {"text/event-stream": {}}}
    if endpoint.returns is None or endpoint.returns is bytes:
        return {}
    return {"content": _json(endpoint.returns, schemas)}


def _json(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schemas[repr(kind)]}}

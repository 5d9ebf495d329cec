"""Services with their instances and methods."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from llmagentos.api.registry import Instance, MethodSpec, ServiceSpec
from llmagentos.server.console import words
from llmagentos.server.console.words import Translate


def listing(instances: Iterable[Instance], t: Translate) -> list[dict[str, Any]]:
    """Services by name, then modules that offer none. The newest instance says what a service can do."""
    offered: dict[str, tuple[ServiceSpec, list[Instance]]] = {}
    alone: dict[str, list[Instance]] = {}
    for instance in sorted(instances, key=lambda one: -one.registered):
        for service in instance.services:
            offered.setdefault(service.name, (service, []))[1].append(instance)
        if not instance.services:
            alone.setdefault(instance.module, []).append(instance)
    return [
        *(_service(spec, found) for _, (spec, found) in sorted(offered.items())),
        *(_group(module, t("A module without services"), alone[module], []) for module in sorted(alone)),
    ]


def _service(spec: ServiceSpec, instances: list[Instance]) -> dict[str, Any]:
    return _group(spec.name, spec.doc, instances, [_method(spec.name, method) for method in spec.methods])


def _group(name: str, doc: str, instances: list[Instance], methods: list[dict[str, Any]]) -> dict[str, Any]:
    shown = [
        {
            "id": instance.id,
            "state": instance.state,
            "module": instance.module,
            "version": instance.version,
            "address": instance.address,
            "since": instance.registered,
        }
        for instance in sorted(instances, key=lambda one: (one.state != "up", -one.registered))
    ]
    return {"name": name, "doc": doc, "instances": shown, "methods": methods}


def _method(service: str, method: MethodSpec) -> dict[str, Any]:
    parameters: dict[str, Any] = method.parameters.get("properties", {})
    required = method.parameters.get("required", [])
    arguments = "".join(f" {shlex.quote(name)}=..." for name in parameters if name in required)
    return {
        "signature": signature(method),
        "doc": method.doc,
        "idempotent": method.idempotent,
        "streams": method.streams,
        "command": f"llmctl call {shlex.quote(service)} {method.name}{arguments}",
    }


def signature(method: MethodSpec) -> str:
    """The method as one line: `find(name: string, most: integer = 5) -> array of Product`."""
    definitions = method.parameters.get("$defs", {})
    parameters = [
        f"{name}: {_type(schema, definitions)}{_default(schema)}"
        for name, schema in method.parameters.get("properties", {}).items()
    ]
    returns = f" -> {_type(method.returns, {})}" if method.returns else ""
    return f"{method.name}({', '.join(parameters)}){returns}"


def _default(schema: Any) -> str:
    if not isinstance(schema, dict) or "default" not in schema:
        return ""
    text = words.compact(schema["default"])
    return f" = {text if len(text) <= 40 else '…'}"


def _type(schema: Any, definitions: dict[str, Any], depth: int = 0) -> str:
    """A JSON Schema in a word or three."""
    if not isinstance(schema, dict) or depth > 3:
        return "any"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(_type(one, definitions, depth + 1) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(words.compact(one) for one in schema["enum"][:6])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}), definitions, depth + 1)}"
    if kind == "object" and "title" in schema:
        return str(schema["title"])
    return " | ".join(kind) if isinstance(kind, list) else str(kind)

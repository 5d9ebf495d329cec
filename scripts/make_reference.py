"""Writes docs/reference/*.md from the code: commands, configuration, API, metrics. `make docs` runs it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

os.environ["LLMAGENTOS_LANG"] = "en"  # before the commands are imported: their help is made then

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reference"
_NOTE = "<!-- Written by `make docs` from the code: change the code, not this page. -->\n\n"


def commands() -> str:
    """The command line: every command with its usage, help and options."""
    from llmagentos.cli.main import cli

    lines = ["# Command line\n", _NOTE]
    context = click.Context(cli, info_name="llmctl")
    for path, command in sorted(_walk(cli, context, ("llmctl",))):
        lines += _command(path, command)
    return "\n".join(lines)


def _walk(
    group: click.Group, context: click.Context, path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += _walk(command, click.Context(command, info_name=name, parent=context), (*path, name))
    return found


def _command(path: tuple[str, ...], command: click.Command) -> list[str]:
    context = click.Context(command, info_name=" ".join(path))
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## `{' '.join(path)}`\n", f"```\n{' '.join(path)} {usage}\n```\n", f"{_text(command.help)}\n"]
    rows = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    if rows := [row for row in rows if row[0] != "--help"]:
        lines += [
            "| option | meaning |",
            "|---|---|",
            *(f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows),
            "",
        ]
    return lines


def _text(text: str | None) -> str:
    return (text or "").replace("\b\n", "").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def metrics() -> str:
    """Every metric with its type, labels and meaning."""
    from llmagentos.core import metrics as source

    lines = ["# Metrics\n", _NOTE, "| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, metric in sorted(vars(source).items(), key=lambda item: str(getattr(item[1], "_name", ""))):
        if name.isupper() and hasattr(metric, "_documentation"):
            suffix = "_total" if metric._type == "counter" else ""
            labels = ", ".join(metric._labelnames)
            lines.append(f"| `{metric._name}{suffix}` | {metric._type} | {labels} | {_cell(metric._documentation)} |")
    return "\n".join([*lines, ""])


def config() -> str:
    """The configuration file's keys, types, defaults and meaning, from its JSON Schema."""
    from llmagentos.core.config import json_schema

    schema = json_schema()
    lines = [
        "# Configuration\n",
        _NOTE,
        "`llmagentos.yaml`, all keys optional. The schema is `docs/llmagentos.schema.json`.\n",
    ]
    definitions = schema.get("$defs", {})
    root = _resolve(schema, definitions)
    lines += _properties("", root, definitions)
    return "\n".join(lines)


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return found
    return schema


def _properties(prefix: str, schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    lines = [f"## `{prefix or 'top level'}`\n", "| key | type | default | meaning |", "|---|---|---|---|"]
    inner: list[str] = []
    for name, value in schema.get("properties", {}).items():
        resolved = _resolve(value, definitions)
        default = msgspec.json.encode(value["default"]).decode() if "default" in value else ""
        meaning = value.get("description") or resolved.get("description", "")
        lines.append(f"| `{name}` | {_type(value, definitions)} | `{default}` | {_cell(str(meaning))} |")
        item = (
            _resolve(resolved.get("additionalProperties") or {}, definitions)
            if isinstance(resolved.get("additionalProperties"), dict)
            else resolved
        )
        if item.get("properties"):
            key = f"{prefix}.{name}".lstrip(".") + ("" if item is resolved else ".<name>")
            inner += _properties(key, item, definitions)
    return [*lines, "", *inner]


def _type(value: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in value:
        return _type(_resolve(value, definitions), definitions)
    if "enum" in value:
        return " \\| ".join(f"`{option}`" for option in value["enum"])
    if options := value.get("anyOf") or value.get("oneOf"):
        return " \\| ".join(_type(option, definitions) for option in options)
    return str(value.get("type", "any"))


def api() -> str:
    """Every route with its method, permission and purpose."""
    from llmagentos.core.config import Config
    from llmagentos.core.state import StateDirectory
    from llmagentos.server.app import create_app

    with tempfile.TemporaryDirectory() as directory:
        state = StateDirectory(Path(directory) / "state")
        state.prepare()
        endpoints = create_app(Config(state=str(state.root)), state).state.endpoints
    lines = ["# API\n", _NOTE, "The whole document is served at `/api/v1/openapi.json`.\n"]
    lines += ["| method | path | permission | body | answer | purpose |", "|---|---|---|---|---|---|"]
    for endpoint in sorted(endpoints, key=lambda e: (e.path, e.method)):
        kinds = [_name(kind) for kind in (endpoint.body, endpoint.returns)]
        answer = "event stream" if endpoint.streams else kinds[1]
        cells = [endpoint.method, f"`{endpoint.path}`", endpoint.allow.value, kinds[0], answer, _cell(endpoint.summary)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _name(kind: Any) -> str:
    if kind is None:
        return ""
    return f"`{kind.__name__ if isinstance(kind, type) else str(kind).replace('llmagentos.api.', '')}`"


PAGES = {"cli.md": commands, "config.md": config, "api.md": api, "metrics.md": metrics}


def main() -> int:
    """Write every page; with `--check` only compare and exit 1 when one is out of date."""
    TARGET.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in PAGES.items():
        path, text = TARGET / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"{'out of date' if '--check' in sys.argv else 'written'}: {', '.join(stale)}\n")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

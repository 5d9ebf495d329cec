"""`llmctl config`: check and show what is in force, and the schema for editors."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from llmagentos.cli.output import emit, emit_json, json_option, warn
from llmagentos.core.config import load
from llmagentos.core.config.publish import as_yaml, json_schema
from llmagentos.core.i18n import tr

_file = click.option(
    "-f",
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=tr("Configuration (default: ./llmagentos.yaml when it exists)."),
)


@click.group(help=tr("Check and show the configuration."))
def config() -> None:
    """The commands below work without a running server."""


@config.command(help=tr("Say whether the configuration is valid, and every fault as file:line."))
@_file
def check(file: Path | None) -> None:
    """Exit code 0 for a valid configuration, 2 for any fault; secrets must be there too."""
    found = load(file)
    for warning in found.warnings:
        warn(warning)
    missing = list(found.config.missing_secrets())
    for fault in missing:
        warn(fault)
    for path in found.config.agents:
        if not Path(path).is_file():
            warn(tr("agents: {path} does not exist", path=path))
    emit(tr("{path} is valid", path=found.file) if found.file else tr("no file: the defaults are in force"))


@config.command(help=tr("Show all values in force: defaults, file and environment. Never a secret."))
@_file
@json_option
def show(file: Path | None, as_json: bool) -> None:
    """YAML that is itself a valid configuration."""
    text = as_yaml(load(file).config)
    if as_json:
        import yaml

        emit_json(yaml.safe_load(text))
    else:
        emit(text, newline=False)


@config.command(help=tr("Print the JSON Schema of llmagentos.yaml, for completion in editors."))
def schema() -> None:
    """The same document as docs/llmagentos.schema.json."""
    emit(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())

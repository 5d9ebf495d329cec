"""Options that commands on playbooks share, and what they are read into."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from llmagentos.cli.inventories import read_text
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr

F = TypeVar("F", bound=Callable[..., Any])


def inventory_options(command: F) -> F:
    """`--inventory` and `--limit`."""
    for option in reversed(
        (
            click.option(
                "-i",
                "--inventory",
                "inventories",
                multiple=True,
                help=tr(
                    "Inventory: a file (INI or YAML), a directory, names with commas, an inventory plugin's"
                    " configuration or a program; host names are node names (default: all nodes)."
                ),
            ),
            click.option(
                "-l",
                "--limit",
                help=tr(
                    "Only hosts that this pattern matches; `@FILE`: those in a file, `@retry`: those that failed last"
                    " time; `filter:os=debian and mem>4GiB`: by the nodes' facts."
                ),
            ),
        )
    ):
        command = option(command)
    return command


def variable_option(command: F) -> F:
    """`--extra-vars`."""
    return click.option(
        "-e", "--extra-vars", "extra", multiple=True, help=tr("Variables: k=v, @file or a YAML or JSON mapping.")
    )(command)


def vault_options(command: F) -> F:
    """`--ask-vault-pass`, `--vault-password-file`, `--vault-id`."""
    for option in reversed(
        (
            click.option("-J", "--ask-vault-pass", is_flag=True, help=tr("Ask for the vault password.")),
            click.option(
                "--vault-password-file",
                "--vault-pass-file",
                "vault_files",
                multiple=True,
                help=tr("File with the vault password, or a program that prints it."),
            ),
            click.option(
                "--vault-id", "vault_ids", multiple=True, help=tr("Vault id and source: NAME@prompt or NAME@FILE.")
            ),
        )
    ):
        command = option(command)
    return command


def listed(values: tuple[str, ...]) -> list[str]:
    """The parts of values that are joined by commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def extra_vars(given: tuple[str, ...]) -> dict[str, Any]:
    """`-e` as ansible-playbook takes it; later ones win. Raises `InvalidInput`."""
    found: dict[str, Any] = {}
    for text in given:
        if text.startswith("@"):
            found |= _mapping(read_text(Path(text[1:])), text)
        elif text.lstrip().startswith(("{", "[")):
            found |= _mapping(text, text)
        else:
            found |= _pairs(text)
    return found


def _pairs(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInput(tr("-e {given}: {error}", given=repr(text), error=str(error).lower())) from None
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name.isidentifier():
            raise InvalidInput(
                tr("-e {given}: expected name=value", given=repr(text)), hint=tr("or @file.yml, or a mapping in JSON")
            )
    return {name: value for name, _, value in pairs}


def _mapping(text: str, what: str) -> dict[str, Any]:
    import yaml  # it is large, and most commands do without

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(tr("-e {given}: not YAML: {error}", given=repr(what[:80]), error=error)) from None
    if found is None and what.startswith("@"):
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InvalidInput(tr("-e {given}: expected a mapping of names to values", given=repr(what[:80])))
    return found

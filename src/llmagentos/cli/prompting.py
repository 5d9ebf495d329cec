"""Asks on the terminal what a playbook's `vars_prompt` wants to know, before anything is queued."""

from __future__ import annotations

import secrets
import string
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from llmagentos.cli.output import note
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr
from llmagentos.fleet.playbooks.check import Reader
from llmagentos.fleet.playbooks.document import PlaybookError
from llmagentos.fleet.playbooks.prompts import Prompt
from llmagentos.fleet.playbooks.vocabulary import vocabulary

_SALT = string.ascii_letters + string.digits
_SALT_SIZES = {"md5_crypt": 8, "bcrypt": 22}
_SALT_SIZE = 16


def answers(
    files: Mapping[str, bytes], playbook: str, given: Mapping[str, Any]
) -> dict[str, list[dict[str, str | None]]]:
    """By variable, what was answered to each play of `files` that asks for it; not for those in `given`.

    Raises `InvalidInput` where nobody is there to be asked and there is no default.
    """
    found: dict[str, list[dict[str, str | None]]] = {}
    for prompt in _prompts(files, playbook, given):
        if prompt.name not in given:
            answer = {"value": _asked(prompt), "salt": _salt(prompt)}
            found.setdefault(prompt.name, []).append(answer)
    return found


def _prompts(files: Mapping[str, bytes], playbook: str, given: Mapping[str, Any]) -> Iterator[Prompt]:
    reader = Reader(files, vocabulary(), given)
    try:
        reader.playbook(playbook)
    except PlaybookError:  # the server says what is wrong with it
        return
    yield from reader.prompts


def _asked(prompt: Prompt) -> str | None:
    """What the user says; None when the default counts."""
    if not sys.stdin.isatty():
        if prompt.default is None:
            raise InvalidInput(
                tr(
                    "{file}:{line}: vars_prompt asks for {name}, and nobody is here to answer",
                    file=prompt.file,
                    line=prompt.line,
                    name=repr(prompt.name),
                ),
                hint=f"-e {prompt.name}=...",
            )
        return None
    text = prompt.text if prompt.default is None else f"{prompt.text} [{prompt.default}]"
    while True:
        said = _read(text, prompt)
        if not prompt.confirm or said == _read(tr("confirm {prompt}", prompt=text), prompt):
            return said if said or prompt.default is None else None
        note(tr("the answers are not the same"))


def _read(text: str, prompt: Prompt) -> str:
    return str(click.prompt(text, default="", show_default=False, hide_input=prompt.private, err=True))


def _salt(prompt: Prompt) -> str | None:
    """One for all nodes, which hash the answer each by itself."""
    if prompt.encrypt is None or prompt.salted:
        return None
    size = _SALT_SIZES.get(prompt.encrypt, _SALT_SIZE)
    last = "Oeu" if prompt.encrypt == "bcrypt" else _SALT  # of bcrypt's last character only two bits count
    return "".join(secrets.choice(_SALT) for _ in range(size - 1)) + secrets.choice(last)

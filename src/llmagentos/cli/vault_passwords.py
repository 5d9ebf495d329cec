"""Passwords of Ansible's vault: asked for or read here, sent for one job, never kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from llmagentos.api.vault import VaultPassword
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr

DEFAULT_ID = "default"
SCRIPT_TIMEOUT_S = 60


def vault_passwords(ask: bool, files: tuple[str, ...], ids: tuple[str, ...]) -> list[VaultPassword]:
    """As ansible-playbook takes `--ask-vault-pass`, `--vault-password-file` and `--vault-id`. Raises `InvalidInput`."""
    found = [_of_id(given) for given in ids]
    found += [VaultPassword(DEFAULT_ID, _of_file(Path(path), DEFAULT_ID)) for path in files]
    if ask:
        found.append(VaultPassword(DEFAULT_ID, _asked(tr("Vault password"))))
    return found


def _of_id(given: str) -> VaultPassword:
    label, at, source = given.rpartition("@")
    name = label if at and label else DEFAULT_ID
    if source == "prompt":
        return VaultPassword(name, _asked(tr("Vault password ({name})", name=name)))
    return VaultPassword(name, _of_file(Path(source), name))


def _asked(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise InvalidInput(
            tr("nobody is here to be asked for the vault password"),
            hint=tr("--vault-password-file FILE, or a terminal"),
        )
    return str(click.prompt(prompt, hide_input=True, err=True))


def _of_file(path: Path, name: str) -> str:
    """A file holds the password; a program prints it, and is told the vault id when it is called `*-client`."""
    try:
        if path.is_file() and os.access(path, os.X_OK):
            told = ["--vault-id", name] if path.stem.endswith("-client") else []
            done = subprocess.run(
                [str(path.absolute()), *told], stdout=subprocess.PIPE, timeout=SCRIPT_TIMEOUT_S, check=True
            )
            content = done.stdout
        else:
            content = path.read_bytes()
        password = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InvalidInput(tr("{path}: the vault password is not UTF-8", path=path)) from None
    except OSError as error:
        raise InvalidInput(tr("{path} cannot be read: {error}", path=path, error=error.strerror)) from None
    except subprocess.SubprocessError as error:
        raise InvalidInput(tr("{path} did not tell the vault password: {error}", path=path, error=error)) from None
    if not password:
        raise InvalidInput(tr("{path} holds no vault password", path=path))
    return password

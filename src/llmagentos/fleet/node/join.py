"""Becoming a node: with a join token, this machine's new key gets a certificate."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import sys
from importlib.metadata import version
from pathlib import Path

from llmagentos.api import nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.nodes import Join, Joined
from llmagentos.core import log
from llmagentos.core.discovery import Credentials, read_secret
from llmagentos.core.errors import ConfigError, InvalidInput, Unauthenticated
from llmagentos.core.files import write_whole
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.insist import insist
from llmagentos.fleet.node.state import Identity, NodeDirectory

_NAME = re.compile(nodes.NAME)
_log = log.get(__name__)


async def identity(
    directory: NodeDirectory, *, server: str, ca: Path | None, token: Path | None, name: str | None
) -> Identity:
    """This node's identity: the one it has, or a new one for the join token in the file `token` (`-`: stdin).

    Waits while the server is away. Raises `ConfigError` without either, `Conflict` when the name is taken,
    `InvalidInput` when it is none.
    """
    if (known := directory.read_identity()) is not None:
        return known
    if name is not None and not _NAME.fullmatch(name):
        raise InvalidInput(
            f"a node cannot be called {name!r}",
            hint="a letter or digit, then up to 62 letters, digits, dots, dashes and underscores",
        )
    if token is None:
        raise ConfigError(
            f"this machine is no node yet: there is no identity in {str(directory.root)!r}",
            hint="make a token with `llmctl token create --kind join NAME` and give it with --token-file",
        )
    secret = await asyncio.to_thread(_secret, token)
    key = keys.generate()
    joined = await _join(Credentials(server, secret, ca), name or default_name(), key, keys.place(directory.root))
    who = Identity(joined.name, server)
    _forget(directory)
    await asyncio.to_thread(write_whole, directory.credential, keys.pem(key, joined.certificate))
    await asyncio.to_thread(directory.write_identity, who)  # last: with it this machine is a node
    _log.info("joined", node=who.name, server=server)
    return who


def _secret(token: Path) -> str:
    return sys.stdin.readline().strip() if str(token) == "-" else read_secret(token)


def default_name() -> str:
    """The host's name as a node may be called."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname().partition(".")[0]).strip("-._")
    return found[:63] or "node"


async def _join(credentials: Credentials, name: str, key: keys.PrivateKey, place: str) -> Joined:
    request = Join(name, socket.gethostname()[:255], version("llmagentos"), keys.request(key, name), place)
    async with ApiClient(credentials.server, credentials.token, tls=credentials.tls()) as client:
        try:
            return await insist(lambda: nodes.join(client, request), what="join")
        except Unauthenticated as error:
            raise Unauthenticated(
                f"the join token was not accepted: {error.message}",
                hint="it is good for a limited time and number of machines:"
                " make another with `llmctl token create --kind join NAME`",
            ) from None


def _forget(directory: NodeDirectory) -> None:
    """Jobs of a server that this machine no longer belongs to: numbers start again at the new one."""
    for path in directory.jobs.iterdir():
        shutil.rmtree(path, ignore_errors=True)
    directory.counter.unlink(missing_ok=True)

"""`llmctl login`: use a server that runs elsewhere, from now on and from every directory."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from llmagentos.api.client import ApiClient
from llmagentos.cli.connect import execute
from llmagentos.cli.output import note
from llmagentos.core.addresses import is_server
from llmagentos.core.discovery import Credentials, read_secret, user_file, write
from llmagentos.core.errors import InvalidInput, Unauthenticated
from llmagentos.core.i18n import tr


@click.command(help=tr("Use the server at URL from now on. The token is asked for, or read from a file."))
@click.argument("url")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help=tr("File with the token; - for standard input. Never an argument: others could read it."),
)
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=tr("CA that signed its certificate.")
)
def login(url: str, token_file: Path | None, ca: Path | None) -> None:
    """Check that the token is good there, then remember both in the user's own configuration."""
    credentials = Credentials(_origin(url), _token(token_file), ca.absolute() if ca else None)
    execute(_verify(credentials))
    write(user_file(), credentials)
    note(tr("Logged in to {server}; remembered in {path}.", server=credentials.server, path=user_file()))


def _origin(url: str) -> str:
    whole = url if "://" in url else f"https://{url}"
    if not is_server(whole):
        raise InvalidInput(f"{url!r} is not the address of a server", hint="for example https://agents.example.com")
    parts = urlsplit(whole)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise InvalidInput(
            f"{url!r} would send the token unencrypted over the network", hint="use https:// (and --ca for an own CA)"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _token(file: Path | None) -> str:
    if file is None:
        token = click.prompt(tr("Token"), hide_input=True, err=True)
    elif str(file) == "-":
        token = sys.stdin.readline()
    else:
        return read_secret(file)
    if not (token := token.strip()):
        raise InvalidInput("the token is empty")
    return str(token)


async def _verify(credentials: Credentials) -> None:
    try:
        async with ApiClient(credentials.server, credentials.token, tls=credentials.tls(), timeout=10) as client:
            await client.download("/health")
    except Unauthenticated as error:
        raise Unauthenticated(
            f"{credentials.server} does not accept this token: {error.message}",
            hint="`llmctl token create` on that machine makes one",
        ) from None
    except ssl.SSLError as error:
        raise InvalidInput(
            f"{credentials.server}: the certificate cannot be trusted: {error.reason}", hint="name its CA with --ca"
        ) from None

"""`llmctl console`: where the console is, and a link that logs in once."""

from __future__ import annotations

import webbrowser

import click

from llmagentos.api.console import LoginLink
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import emit_json, fields, json_option, note, warn
from llmagentos.core.i18n import tr


@click.command(help=tr("Print the console's address and a link that logs in once, within 10 minutes."))
@click.option("--open", "open_it", is_flag=True, help=tr("Open the link in the browser of this machine."))
@json_option
def console(open_it: bool, as_json: bool) -> None:
    """Ask the server for a link in the name of this user's token."""
    address, link, expires_in = execute(_link())
    if as_json:
        emit_json({"console": address, "login": link, "expires_in": expires_in})
    else:
        fields([(tr("Console"), address), (tr("Log in"), link)])
        note(tr("The link works once, within {minutes} minutes.", minutes=round(expires_in / 60)))
    if open_it and not webbrowser.open(link):
        warn(tr("no browser could be opened here: open the link yourself"))


async def _link() -> tuple[str, str, float]:
    async with connected() as client:
        made = await client.post("/api/v1/login-links", {}, LoginLink)
        return f"{client.server}/", f"{client.server}{made.path}", made.expires_in

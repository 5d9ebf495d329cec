"""`llmctl node`: this machine as a node, and one node of the fleet."""

from __future__ import annotations

import os
from pathlib import Path

import click

from llmagentos.cli.node_show import show
from llmagentos.cli.node_steering import allow, cordon, deny, drain, label, remove, revoke, uncordon
from llmagentos.cli.node_update import update
from llmagentos.cli.output import note
from llmagentos.cli.telemetry import logs, metrics
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr


@click.group(help=tr("Join this machine; show, drain, label, revoke or remove nodes."))
def node() -> None:
    """Commands on one node hang below this group."""


for command in (show, cordon, uncordon, drain, label, allow, deny, update, revoke, remove):
    node.add_command(command)
node.add_command(metrics)
node.add_command(logs)


@node.command(help=tr("Make this machine a node of the server at URL and run its node agent in the foreground."))
@click.argument("url")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=tr("File with the join token; needed only the first time."),
)
@click.option("--token", help=tr("`-`: read the join token from standard input."))
@click.option("--name", help=tr("Name of the node (default: the host's name)."))
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help=tr("Directory of the node's state (default: /var/lib/llmagentos/node for root)."),
)
@click.option(
    "--ca", type=click.Path(dir_okay=False, exists=True, path_type=Path), help=tr("CA certificate of the server.")
)
@click.option("--metrics", default="127.0.0.1:0", help=tr("Where the node agent serves its metrics (host:port)."))
def join(
    url: str,
    token_file: Path | None,
    token: str | None,
    name: str | None,
    state: Path | None,
    ca: Path | None,
    metrics: str,
) -> None:
    """Run the node agent until it is told to stop."""
    import asyncio

    from llmagentos.api.http import Target
    from llmagentos.core import log, tracing
    from llmagentos.fleet.node.agent import Options, run

    if token not in (None, "-"):
        raise InvalidInput(
            tr("a token on the command line can be read by every user of this machine"),
            hint=tr("give it on standard input with `--token -`, or in a file with `--token-file`"),
        )
    try:
        Target.of(url)
    except ValueError as error:
        raise InvalidInput(str(error), hint=tr("e.g. https://host:7080")) from None
    log.configure(process="node")
    if otlp := os.environ.get("LLMAGENTOS_OTLP"):
        tracing.configure(process="node", endpoint=otlp)
    options = Options(state or default_state(), url, ca, Path("-") if token else token_file, name, metrics)
    note(tr("Node agent on {path}; Ctrl-C stops it.", path=options.state))
    try:
        asyncio.run(run(options))
    finally:
        tracing.shutdown()


def default_state() -> Path:
    """Where a node agent that was started by hand keeps its state."""
    if os.geteuid() == 0:
        return Path("/var/lib/llmagentos/node")
    root = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(root) / "llmagentos" / "node"

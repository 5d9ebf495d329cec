"""`llmctl mcp`: MCP servers and what they offer."""

from __future__ import annotations

import click

from llmagentos.api import mcp as api
from llmagentos.api.mcp import McpServerInfo, McpTool
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, emit, emit_json, fields, json_option, short, state, table, warn
from llmagentos.core.i18n import tr


@click.command(help=tr("List MCP servers; with a name, connect to one and show its tools."))
@click.argument("name", required=False)
@json_option
def mcp(name: str | None, as_json: bool) -> None:
    """One line a server, or one server."""
    if name is None:
        _list(as_json)
        return
    shown = execute(_get(name))
    if as_json:
        emit_json(shown)
        return
    _show(shown)


def _list(as_json: bool) -> None:
    found = execute(_listing())
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Name"), tr("State"), tr("Transport"), tr("Target"), tr("Tools"), tr("Protocol"), tr("Since")],
        (
            [
                server.name,
                state(server.state),
                server.transport,
                short(server.target, 50),
                len(server.tools) or "-",
                server.version or "-",
                ago(server.since),
            ]
            for server in found
        ),
        empty=tr("No MCP servers. `mcp:` in llmagentos.yaml names them."),
    )


def _show(server: McpServerInfo) -> None:
    fields(
        [
            (tr("Name"), server.name),
            (tr("State"), state(server.state)),
            (tr("Transport"), server.transport),
            (tr("Target"), server.target),
            (tr("Calls itself"), server.server or "-"),
            (tr("Protocol"), server.version or "-"),
            (tr("Connected"), tr("{time}, {count} times", time=ago(server.since), count=server.connections)),
        ]
    )
    emit()
    table(
        [tr("Tool"), tr("Arguments"), tr("What it does")],
        ([tool.name, short(_arguments(tool), 40), short(tool.doc, 70)] for tool in server.tools),
        empty=tr("It offers no tools."),
    )
    for refused in server.refused:
        warn(tr("not used: {reason}", reason=refused))
    if server.error is not None:
        warn(server.error)


def _arguments(tool: McpTool) -> str:
    return ", ".join(tool.parameters.get("properties", {}))


async def _listing() -> list[McpServerInfo]:
    async with connected() as client:
        return await api.listing(client)


async def _get(name: str) -> McpServerInfo:
    async with connected() as client:
        return await api.get(client, name)

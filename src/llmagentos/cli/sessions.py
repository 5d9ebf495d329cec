"""`llmctl sessions`, `sessions show`, `sessions delete`."""

from __future__ import annotations

import click

from llmagentos.api import sessions as api
from llmagentos.api.sessions import SessionDetail, SessionInfo
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, emit, emit_json, json_option, listing_group, note, paint, state, table
from llmagentos.core.i18n import tr

user_option = click.option("--user", help=tr("Another user, as `llmctl ps` shows who asked (administrators only)."))


@listing_group(tr("List conversations with agents, show and delete them."))
@click.option("--agent", help=tr("Only those with this agent."))
@click.option("--all", "everybody", is_flag=True, help=tr("Those of everybody (administrators only)."))
@json_option
def sessions(agent: str | None, everybody: bool, as_json: bool) -> None:
    """Without a command: the list."""
    found = execute(_listing(agent, everybody))
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Session"), tr("Agent"), tr("User"), tr("Requests"), tr("State"), tr("Last used")],
        (
            [one.name, one.agent, one.user, one.runs, state("running" if one.busy else "idle"), ago(one.used)]
            for one in found
        ),
        empty=tr("No sessions. `llmctl ask AGENT --session NAME ...` begins one."),
    )


async def _listing(agent: str | None, everybody: bool) -> list[SessionInfo]:
    async with connected() as client:
        return await api.listing(client, agent=agent, everybody=everybody)


@sessions.command(help=tr("Show what the next request of a session would know."))
@click.argument("agent")
@click.argument("name")
@user_option
@json_option
def show(agent: str, name: str, user: str | None, as_json: bool) -> None:
    """The summary of its older part, if there is one, and the turns."""
    found = execute(_show(agent, name, user))
    if as_json:
        emit_json(found)
        return
    if found.summary:
        emit(paint(tr("Summary of the older part:"), "cyan", bold=True))
        emit(f"{found.summary}\n")
    for turn in found.turns:
        emit(f"{paint('>', 'cyan', bold=True)} {turn.input}")
        emit(turn.answer)


async def _show(agent: str, name: str, user: str | None) -> SessionDetail:
    async with connected() as client:
        return await api.show(client, agent, name, user=user)


@sessions.command(help=tr("Delete a session with its runs."))
@click.argument("agent")
@click.argument("name")
@user_option
def delete(agent: str, name: str, user: str | None) -> None:
    """Refused while it works on a request."""
    execute(_delete(agent, name, user))
    note(tr("session {name} deleted", name=name))


async def _delete(agent: str, name: str, user: str | None) -> None:
    async with connected() as client:
        await api.delete(client, agent, name, user=user)

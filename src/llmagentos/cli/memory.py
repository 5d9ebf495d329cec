"""`llmctl memory list`, `search`, `add`, `forget`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from llmagentos.api import memory as api
from llmagentos.api.memory import Fact
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, emit, emit_json, json_option, note, table
from llmagentos.cli.sessions import user_option
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr


@click.group(help=tr("What agents remember of you from one session to the next."))
def memory() -> None:
    """Everybody sees their own."""


@memory.command(name="list", help=tr("List what agents remember."))
@click.argument("agent", required=False)
@user_option
@json_option
def list_(agent: str | None, user: str | None, as_json: bool) -> None:
    """The newest first."""
    _print(execute(_listing(agent, user)), as_json)


async def _listing(agent: str | None, user: str | None) -> list[Fact]:
    async with connected() as client:
        return await api.listing(client, agent, user=user)


@memory.command(help=tr("Search what an agent remembers, as the agent itself does."))
@click.argument("agent")
@click.argument("query")
@click.option("-n", "--limit", type=click.IntRange(1, 50), default=5, show_default=True, help=tr("So many at most."))
@user_option
@json_option
def search(agent: str, query: str, limit: int, user: str | None, as_json: bool) -> None:
    """By words and by meaning."""
    _print(execute(_search(agent, query, limit, user)), as_json)


async def _search(agent: str, query: str, limit: int, user: str | None) -> list[Fact]:
    async with connected() as client:
        return await api.search(client, agent, query, user=user, limit=limit)


@memory.command(help=tr("Have an agent remember a fact."))
@click.argument("agent")
@click.argument("text")
@click.option("--tag", "tags", multiple=True, help=tr("A word to find it by; may be given several times."))
def add(agent: str, text: str, tags: tuple[str, ...]) -> None:
    """Prints its id."""
    emit(execute(_add(agent, text, tags)).id)


async def _add(agent: str, text: str, tags: Sequence[str]) -> Fact:
    async with connected() as client:
        return await api.add(client, agent, text, tags=list(tags))


@memory.command(help=tr("Forget a fact, or with --all everything that an agent remembers of you."))
@click.argument("fact", required=False)
@click.option("--all", "agent", metavar="AGENT", help=tr("Everything that this agent remembers."))
@user_option
def forget(fact: str | None, agent: str | None, user: str | None) -> None:
    """One of the two."""
    if (fact is None) == (agent is None):
        raise InvalidInput(tr("give either the id of a fact or --all AGENT"), hint="`llmctl memory list`")
    execute(_forget(fact, agent, user))
    note(tr("forgotten"))


async def _forget(fact: str | None, agent: str | None, user: str | None) -> None:
    async with connected() as client:
        if fact is not None:
            await api.forget(client, fact, user=user)
        elif agent is not None:
            await api.forget_all(client, agent, user=user)


def _print(found: Sequence[Fact], as_json: bool) -> None:
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Id"), tr("Agent"), tr("Fact"), tr("Tags"), tr("Last used")],
        ([fact.id, fact.agent, fact.text, ", ".join(fact.tags) or "-", ago(fact.used)] for fact in found),
        empty=tr("Nothing is remembered."),
    )

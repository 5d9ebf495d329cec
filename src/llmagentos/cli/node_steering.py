"""`llmctl node cordon`, `uncordon`, `drain`, `remove`, `revoke`, `label`, `allow`, `deny`: what people do to nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click

from llmagentos.api import nodes as api
from llmagentos.api.client import ApiClient
from llmagentos.api.nodes import NodeSummary
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import note
from llmagentos.cli.span import Span
from llmagentos.core.errors import DeadlineExceeded, InvalidInput
from llmagentos.core.i18n import tr

F = TypeVar("F", bound=Callable[..., Any])
Action = Literal["cordon", "uncordon", "drain", "revoke"]
LOOK_S = 0.5


def which(command: F) -> F:
    """NAMES..., or `--filter` for those that match: the command gets `names` and `expression`."""
    expression = click.option("-f", "--filter", "expression", help=tr("All nodes that match this expression."))
    return click.argument("names", nargs=-1)(expression(command))


async def chosen(client: ApiClient, names: tuple[str, ...], expression: str | None) -> list[str]:
    """The nodes that `which` means. Raises `InvalidInput` for none."""
    if not names and expression is None:
        raise InvalidInput(tr("no node is named"), hint=tr("their names, or --filter EXPRESSION"))
    matching = [] if expression is None else [node.name for node in await api.listing(client, filter=expression)]
    found = list(dict.fromkeys([*names, *matching]))
    if not found:
        raise InvalidInput(tr("no node matches {expression}", expression=repr(expression)))
    return found


@click.command(help=tr("Give nodes no new jobs. What runs on them goes on."))
@which
def cordon(names: tuple[str, ...], expression: str | None) -> None:
    """What is queued for them waits."""
    execute(_act(names, expression, "cordon", lambda name: tr("{name} gets no new jobs", name=name)))


@click.command(help=tr("Give nodes jobs again; their modules run again."))
@which
def uncordon(names: tuple[str, ...], expression: str | None) -> None:
    """The opposite of cordon and of drain."""
    execute(_act(names, expression, "uncordon", lambda name: tr("{name} gets jobs again", name=name)))


@click.command(help=tr("Empty nodes: no new jobs, running ones end, then their modules are stopped one by one."))
@which
@click.option("--wait/--no-wait", default=True, show_default=True, help=tr("Wait until they are empty."))
@click.option("--timeout", type=Span(), default="10m", show_default=True, help=tr("The longest wait."))
def drain(names: tuple[str, ...], expression: str | None, wait: bool, timeout: float) -> None:
    """Exit code 1 when they were not empty in time; they go on emptying."""
    execute(_drain(names, expression, timeout if wait else None))


@click.command(help=tr("End nodes' identities at once: certificates, tokens, and those of their modules."))
@which
def revoke(names: tuple[str, ...], expression: str | None) -> None:
    """A machine may join under the name again, with a new join token; labels and queued jobs stay."""
    execute(_act(names, expression, "revoke", lambda name: tr("{name} is revoked", name=name)))


@click.command(help=tr("Take nodes out: they and their modules lose their tokens, their queued jobs are cancelled."))
@which
def remove(names: tuple[str, ...], expression: str | None) -> None:
    """What runs on the machines is left alone; it is told nothing any more."""
    execute(_remove(names, expression))


@click.command(help=tr("Set labels of a node (`env=prod`), or take them away (`env-`)."))
@click.argument("name")
@click.argument("changes", nargs=-1, required=True)
def label(name: str, changes: tuple[str, ...]) -> None:
    """Labels make groups (`label_env_prod`) and can be asked for in filters (`label.env=prod`)."""
    wanted: dict[str, str | None] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals and not change.endswith("-"):
            raise InvalidInput(tr("{change}: expected NAME=VALUE or NAME-", change=repr(change)))
        wanted[key if equals else change[:-1]] = text if equals else None
    execute(_label(name, wanted))


@click.command(help=tr("Let a node have tokens for modules; MODULE is a name, with * and ? for any."))
@click.argument("name")
@click.argument("module")
def allow(name: str, module: str) -> None:
    """Needed only for modules that no playbook of ours put there."""
    execute(_grant(name, module, api.allow))
    note(tr("{name} may run {module}", name=name, module=module))


@click.command(help=tr("Take `llmctl node allow` back; tokens of those modules end."))
@click.argument("name")
@click.argument("module")
def deny(name: str, module: str) -> None:
    """The pattern as `llmctl node show` lists it."""
    execute(_grant(name, module, api.deny))
    note(tr("{name} may no longer run {module}", name=name, module=module))


async def _grant(name: str, module: str, do: Callable[[ApiClient, str, str], Any]) -> None:
    async with connected() as client:
        await do(client, name, module)


async def _act(
    names: tuple[str, ...], expression: str | None, action: Action, say: Callable[[str], str]
) -> list[NodeSummary]:
    async with connected() as client:
        done = []
        for name in await chosen(client, names, expression):
            done.append(await api.act(client, name, action))
            note(say(name))
        return done


async def _drain(names: tuple[str, ...], expression: str | None, timeout: float | None) -> None:
    told = await _act(names, expression, "drain", lambda name: tr("{name} is being emptied", name=name))
    waiting = {node.name for node in told if node.availability != "drained"}
    deadline = time.monotonic() + (timeout or 0.0)
    async with connected() as client:
        while waiting and timeout is not None:
            for node in [node for node in await api.listing(client) if node.name in waiting]:
                if node.availability == "drained":
                    note(tr("{name} is empty", name=node.name))
                    waiting.discard(node.name)
                elif node.availability != "draining":
                    raise InvalidInput(tr("{name} is no longer being emptied", name=node.name))
            if waiting and time.monotonic() > deadline:
                raise DeadlineExceeded(
                    tr("not empty yet: {names}", names=", ".join(sorted(waiting))),
                    hint=tr("`llmctl node show NAME` says what runs; `llmctl node uncordon NAME` takes it back"),
                )
            await asyncio.sleep(LOOK_S if waiting else 0)


async def _remove(names: tuple[str, ...], expression: str | None) -> None:
    async with connected() as client:
        for name in await chosen(client, names, expression):
            await api.remove(client, name)
            note(tr("node {name} is removed", name=name))


async def _label(name: str, wanted: dict[str, str | None]) -> None:
    async with connected() as client:
        done = await api.label(client, name, wanted)
    note(", ".join(f"{key}={text}" for key, text in done.labels.items()) or tr("no labels"))

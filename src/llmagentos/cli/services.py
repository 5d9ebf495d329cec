"""`llmctl services` and `llmctl call`: what is registered, and one call from the shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import click
import msgspec

from llmagentos.api import registry
from llmagentos.api.client import ApiClient
from llmagentos.api.http import ConnectFailed, ConnectionLost, HttpClient
from llmagentos.api.registry import Instance, MethodSpec, Snapshot
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, emit, emit_json, json_option, state, table
from llmagentos.cli.span import Span
from llmagentos.core.clock import SystemClock
from llmagentos.core.errors import DeadlineExceeded, InvalidInput
from llmagentos.core.i18n import tr
from llmagentos.services.caller import TIMEOUT_S, ServiceCaller
from llmagentos.services.directory import Directory
from llmagentos.services.errors import no_instance
from llmagentos.services.tokens import ServiceTokens

AGAIN_S = 0.2
"""A server that went away while it was followed is asked again after this."""


class Row(msgspec.Struct, frozen=True):
    """One instance of one service: what `--json` prints. `registered` is seconds since the epoch, UTC."""

    name: str
    module: str
    version: str
    instance: str
    address: str
    state: str
    registered: float
    methods: list[MethodSpec]


@click.command(help=tr("List services and their instances."))
@click.option("--wait", "wanted", metavar="NAME", help=tr("Wait until this service has an instance; show only it."))
@click.option("--timeout", type=Span(), default=30.0, show_default=True, help=tr("How long to wait, e.g. 30s."))
@json_option
def services(wanted: str | None, timeout: float, as_json: bool) -> None:
    """One line for each instance of each service."""
    rows = execute(_rows(wanted, timeout))
    if as_json:
        emit_json(rows)
        return
    table(
        [tr("Service"), tr("Module"), tr("Version"), tr("State"), tr("Address"), tr("Registered"), tr("Methods")],
        [_line(row) for row in rows],
        empty=tr("No services are registered."),
    )


@click.command(help=tr("Call a method: `llmctl call hello-service say_hello name=world`."))
@click.argument("service")
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--json-args", "document", metavar="JSON", help=tr("The arguments as one JSON object."))
@click.option("--timeout", type=Span(), default=TIMEOUT_S, show_default=True, help=tr("How long to wait, e.g. 30s."))
def call(service: str, method: str, arguments: Sequence[str], document: str | None, timeout: float) -> None:
    """Print the result as JSON; a streaming method's items one a line."""
    execute(_call(service, method, parsed(arguments, document), timeout))


def parsed(arguments: Sequence[str], document: str | None = None) -> dict[str, Any]:
    """Named arguments: values that are JSON count as such, others as text. Raises `InvalidInput`."""
    found = _object(document) if document is not None else {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise InvalidInput(
                tr("{argument} is no argument: write NAME=VALUE", argument=repr(argument)),
                hint=tr("values may be JSON: n=3 names='[\"a\"]'"),
            )
        found[name] = _value(text)
    return found


def _object(document: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise InvalidInput(tr("--json-args: not a JSON object: {error}", error=error)) from None


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return text


def _line(row: Row) -> list[object]:
    methods = ", ".join(method.name for method in row.methods)
    return [row.name, row.module, row.version, state(row.state), row.address, ago(row.registered), methods]


async def _rows(wanted: str | None, timeout: float) -> list[Row]:
    async with connected() as client:
        if wanted is None:
            found = await registry.instances(client)
        else:
            found = await _waited(client, wanted, timeout)
    return [
        Row(spec.name, i.module, i.version, i.id, i.address, i.state, i.registered, spec.methods)
        for i in sorted(found, key=lambda instance: (instance.module, instance.registered))
        for spec in i.services
        if wanted is None or spec.name == wanted
    ]


async def _waited(client: ApiClient, service: str, timeout: float) -> list[Instance]:
    """The instances of `service`, once at least one is up."""
    directory = Directory()
    try:
        async with asyncio.timeout(timeout):
            while True:
                if await _up(client, service, directory):
                    return directory.offering(service)
                await asyncio.sleep(AGAIN_S)
    except TimeoutError:
        raise DeadlineExceeded(
            tr("no instance of {service} came up within {seconds} s", service=repr(service), seconds=f"{timeout:g}"),
            hint=no_instance(service, directory.services()).hint,
        ) from None


async def _up(client: ApiClient, service: str, directory: Directory) -> bool:
    """Follow the registry into `directory` until an instance is up; False when the server went away meanwhile."""
    known = directory.version
    try:
        async with registry.watch(client) as changes:
            async for change in changes:
                if isinstance(change, Snapshot):
                    directory.replace(change.instances)
                else:
                    directory.apply(change)
                if any(instance.state == "up" for instance in directory.offering(service)):
                    return True
    except (ConnectFailed, ConnectionLost):
        if not known:  # it was never there
            raise
    return False


async def _call(service: str, method: str, arguments: dict[str, Any], timeout: float) -> None:
    async with connected() as client:
        directory = Directory()
        directory.replace(await registry.instances(client))
        tokens = ServiceTokens(lambda name: registry.service_token(client, service=name), SystemClock())
        # What is registered now is all there will be: nobody follows the registry for one call.
        caller = ServiceCaller(directory, tokens, HttpClient(tls=client.tls), SystemClock(), wait=0.0)
        try:
            result = await caller.call(service, method, arguments, timeout=timeout)
            if not isinstance(result, AsyncIterator):
                emit(msgspec.json.encode(result).decode())
                return
            async for item in result:
                emit(msgspec.json.encode(item).decode())
        finally:
            await caller.aclose()

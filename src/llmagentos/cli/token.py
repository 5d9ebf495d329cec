"""`llmctl token`: make, list and revoke tokens; short-lived ones for calling one service."""

from __future__ import annotations

import click

from llmagentos.api.tokens import NewToken, ServiceToken, TokenInfo, TokenRequest
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, duration, emit, emit_json, json_option, note, table, when
from llmagentos.cli.span import Span
from llmagentos.core.i18n import tr

KINDS = ("admin", "operator", "viewer", "module", "join", "metrics")


@click.group(help=tr("Make, list and revoke tokens."))
def token() -> None:
    """The commands below it."""


@token.command("create", help=tr("Make a token; its secret is printed this once."))
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="viewer",
    show_default=True,
    help=tr("What it may do: SECURITY.md has the table."),
)
@click.option("--ttl", type=Span(), help=tr("How long it lives, e.g. 12h (default: until revoked; join: 1h)."))
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, help=tr("Join: how many machines (default: 1)."))
@click.option("--allow", "modules", multiple=True, help=tr("Join: modules that the nodes may run, with * and ?."))
@click.option("--label", "labels", multiple=True, help=tr("Join: a label of the nodes, NAME=VALUE."))
@json_option
def create(
    name: str,
    kind: str,
    ttl: float | None,
    uses: int,
    modules: tuple[str, ...],
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the secret alone, so that it can go into a file or a variable."""
    pairs = {key: text for key, _, text in (each.partition("=") for each in labels)}
    made = execute(_create(TokenRequest(kind, name, ttl, uses, list(modules), pairs)))
    if as_json:
        emit_json(made)
        return
    emit(made.token)
    note(_ending(made.info))


def _ending(info: TokenInfo) -> str:
    until = when(info.expires) if info.expires else None
    if info.uses_left is not None and info.uses_left > 1:
        return tr("Token {id} works {uses} times, until {until}.", id=info.id, uses=info.uses_left, until=until)
    if info.one_time:
        return tr("Token {id} works once, until {until}.", id=info.id, until=until)
    if until:
        return tr("Token {id} works until {until}.", id=info.id, until=until)
    return tr("Token {id} works until `llmctl token revoke {id}`.", id=info.id)


async def _create(wanted: TokenRequest) -> NewToken:
    async with connected() as client:
        return await client.post("/api/v1/tokens", wanted, NewToken)


@token.command("list", help=tr("List tokens; secrets are not stored and cannot be shown."))
@json_option
def listing(as_json: bool) -> None:
    """All tokens that are valid now."""
    found = execute(_list())
    if as_json:
        emit_json(found)
        return
    table(
        ["ID", tr("Kind"), tr("Name"), tr("Made"), tr("By"), tr("Expires")],
        [(t.id, t.kind, t.name, ago(t.created), t.created_by, when(t.expires)) for t in found],
        empty=tr("No tokens."),
    )


async def _list() -> list[TokenInfo]:
    async with connected() as client:
        return await client.get("/api/v1/tokens", list[TokenInfo])


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [known.id for known in execute(_list()) if known.id.startswith(incomplete)]


@token.command("revoke", help=tr("Revoke tokens with immediate effect."))
@click.argument("ids", nargs=-1, required=True, shell_complete=_complete)
def revoke(ids: tuple[str, ...]) -> None:
    """End each token and the console sessions opened with it."""
    execute(_revoke(ids))


async def _revoke(ids: tuple[str, ...]) -> None:
    async with connected() as client:
        for token_id in ids:
            await client.delete(f"/api/v1/tokens/{token_id}")
            emit(tr("{id} revoked", id=token_id))


@token.command("service", help=tr("Print a token for calling one service with any HTTP client."))
@click.argument("name")
@click.option("--module", "is_module", is_flag=True, help=tr("NAME is a module: its /health, /metrics, /openapi.json."))
@json_option
def service(name: str, is_module: bool, as_json: bool) -> None:
    """It is valid for an hour and for that service alone."""
    made = execute(_service({"module" if is_module else "service": name}))
    if as_json:
        emit_json(made)
        return
    emit(made.token)
    note(tr("Valid for {time}.", time=duration(made.expires_in)))


async def _service(wanted: dict[str, str]) -> ServiceToken:
    async with connected() as client:
        return await client.post("/api/v1/service-tokens", wanted, ServiceToken)

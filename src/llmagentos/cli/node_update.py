"""`llmctl node update`: have node agents become another version, and take it back where it does not work."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

import click

from llmagentos.api import nodes as api
from llmagentos.api.client import ApiClient
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.node_steering import chosen, which
from llmagentos.cli.output import note
from llmagentos.cli.span import Span
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, OperatorError
from llmagentos.core.i18n import tr

LOOK_S = 0.5


class UpdateFailed(OperatorError):
    """A node is back on the version that it had."""

    code = "update_failed"


@click.command(help=tr("Have node agents become the server's version, or the one in a wheel; taken back if it fails."))
@which
@click.option(
    "--wheel",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=tr("File with the version (default: what the server runs)."),
)
@click.option("--wait/--no-wait", default=True, show_default=True, help=tr("Wait for each node before the next one."))
@click.option("--timeout", type=Span(), default="10m", show_default=True, help=tr("The longest wait for a node."))
def update(names: tuple[str, ...], expression: str | None, wheel: Path | None, wait: bool, timeout: float) -> None:
    """One after the other; the first that fails ends it. Exit code 1 then."""
    execute(_update(names, expression, wheel, timeout if wait else None))


async def _update(names: tuple[str, ...], expression: str | None, wheel: Path | None, timeout: float | None) -> None:
    content = await asyncio.to_thread(wheel.read_bytes) if wheel is not None else None
    async with connected() as client:
        digest = None
        if content is not None:
            digest = hashlib.sha256(content).hexdigest()
            await api.upload_wheel(client, digest, content)
        for name in await chosen(client, names, expression):
            wanted = await api.upgrade(client, name, digest)
            note(tr("{name} becomes {version}", name=name, version=wanted.version))
            if timeout is not None:
                await _ended(client, name, wanted.digest, timeout)


async def _ended(client: ApiClient, name: str, digest: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        upgrade = (await api.show(client, name)).upgrade
        if upgrade is None or upgrade.digest != digest:
            raise InvalidInput(tr("somebody wants another version for {name} meanwhile", name=name))
        if upgrade.state == "failed":
            raise UpdateFailed(
                tr("{name} is back on the version it had: {why}", name=name, why=upgrade.message),
                hint=tr("the nodes after it were left as they are"),
            )
        if upgrade.state == "done":
            note(tr("{name} runs {version}", name=name, version=upgrade.version))
            return
        if time.monotonic() > deadline:
            raise DeadlineExceeded(tr("{name} has not said how it went; is it away?", name=name))
        await asyncio.sleep(LOOK_S)

"""The node agent as a whole: identity, heartbeats, the job queue, modules, metrics; stopped in order."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmagentos.api import nodes
from llmagentos.api.nodes import Beat
from llmagentos.core import log
from llmagentos.core.errors import Unauthenticated
from llmagentos.core.state import StateDirectory
from llmagentos.fleet.node import modules
from llmagentos.fleet.node.beats import Beats
from llmagentos.fleet.node.collect.collector import Collector
from llmagentos.fleet.node.endpoint import serving
from llmagentos.fleet.node.join import identity
from llmagentos.fleet.node.modules import Modules
from llmagentos.fleet.node.queue import Queue
from llmagentos.fleet.node.session import Session
from llmagentos.fleet.node.state import Identity, NodeDirectory
from llmagentos.fleet.node.upgrade import Upgrader, prefix
from llmagentos.fleet.node.warm import Warm

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How a node agent is started."""

    state: Path
    server: str
    ca: Path | None = None
    join_token: Path | None = None
    name: str | None = None
    metrics: str = "127.0.0.1:0"
    join_only: bool = False
    """Become a node and end."""


async def run(options: Options) -> None:
    """Be a node until SIGTERM, SIGINT or SIGHUP.

    Raises `StateTaken` when another node agent works on the state directory, and what `identity` raises;
    `Unauthenticated` once the node was removed from the server.
    """
    directory = NodeDirectory(options.state.absolute())
    directory.prepare()
    with StateDirectory(directory.root).held(options.server), _stop_signals() as stop:
        joining = asyncio.create_task(
            identity(directory, server=options.server, ca=options.ca, token=options.join_token, name=options.name)
        )
        await _until(stop, joining)
        if not stop.is_set() and not options.join_only:
            await _serve(options, directory, joining.result(), stop)


async def _serve(options: Options, directory: NodeDirectory, who: Identity, stop: asyncio.Event) -> None:
    ca = options.ca.absolute() if options.ca is not None else None
    async with Session(directory, who, options.server, ca) as client:
        kept = Modules(
            directory.units,
            directory.modules,
            token=lambda name: nodes.module_token(client, name),
            environ=modules.environment(options.server, ca),
        )
        variables = {
            "llmagentos_node": who.name,
            "llmagentos_modules_dir": str(directory.units),
            "llmagentos_collect_dir": str(directory.collect),
            "llmagentos_python": sys.executable,
        }
        warm = Warm(directory.ansible, directory.root / "warm.log")
        queue = Queue(
            client, directory.jobs, home=directory.ansible, variables=variables, warm=warm, unseal=client.unseal
        )
        collector = Collector(client, directory.telemetry, directory.collect)
        upgrader = Upgrader(client, prefix())

        def heed(beat: Beat) -> None:
            kept.heed(beat.drain)
            upgrader.heed(beat.upgrade)

        beats = Beats(client, directory.root, modules=kept.status, heed=heed)
        with log.bind(node=who.name), serving(directory, options.metrics) as url:
            _log.info("node agent runs", server=options.server, metrics=url)
            try:
                loops = (
                    queue.run(),
                    beats.run(),
                    kept.run(),
                    warm.run(),
                    client.keep(),
                    upgrader.run(),
                    collector.run(),
                )
                await _until(stop, *(asyncio.create_task(loop) for loop in loops))
            except Unauthenticated as error:
                hint = f"to join again: stop this, delete {directory.identity}, start it with a new join token"
                told = f"this machine is no longer the node {who.name!r}: {error.message}"
                raise type(error)(told, hint=hint) from None
            finally:
                if queue.job is not None:
                    _log.warning("a playbook runs on; the next node agent collects its end", job_id=str(queue.job))
                await kept.stop()
                await asyncio.to_thread(warm.close)
                _log.info("node agent stopped")


async def _until(stop: asyncio.Event, *tasks: asyncio.Task[Any]) -> None:
    """Wait for the first of `tasks` to end, or for `stop`, and end the others. Raises what a task raised."""
    waiting = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that is set by the signals that end the node agent."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

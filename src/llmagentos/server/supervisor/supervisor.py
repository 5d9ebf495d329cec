"""The supervisor: brings the parts of one machine up in order, keeps them running, and stops them in order.

The server and the engines start at once; what needs the server (node agent, modules, agents) follows
when it answers. Stopping goes the other way: the node agent first, because the modules it stops still
deregister at the server, then everything else.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from llmagentos.core import logfile
from llmagentos.core.child import Child, ChildSpec
from llmagentos.core.config import Loaded
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.i18n import tr
from llmagentos.core.state import StateDirectory, unusable
from llmagentos.fleet.node.jobdir import running
from llmagentos.server.supervisor import parts, ports, strays
from llmagentos.server.supervisor.bringup import Answering, BringUp
from llmagentos.server.supervisor.engines import Engines
from llmagentos.server.supervisor.report import Report

NODE_STOP_S = 4.5
REST_STOP_S = 4.0
_ROTATE_EVERY_S = 2.0
_DISK_LOW_BYTES = 512 * 1024 * 1024
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Ready:
    """What the operator is told when the system can be used."""

    url: str
    seconds: float  # it took
    first_token: str | None  # the admin token, at the first start only
    login: str  # a link that logs in to the console, once


class Supervisor:
    """Runs the system that `loaded` describes until it is told to stop."""

    def __init__(self, loaded: Loaded, *, terminal: TextIO | None) -> None:
        self._loaded = loaded
        self._config = loaded.config
        self._state = StateDirectory(loaded.config.state_path)
        self._terminal = terminal
        self._children: dict[str, Child] = {}
        self._stopping = asyncio.Event()
        self._failure: LLMAgentOSError | None = None
        self._unrecorded = False

    async def run(self, on_ready: Callable[[Ready], None]) -> None:
        """Everything from the lock to the last child's end.

        Raises `StateTaken`, `StateUnusable`, `PortTaken`, or `ChildFailed` when the server does not come up.
        """
        begun = time.monotonic()
        self._state.prepare()
        with self._state.held(self._config.server.url):
            self._report = Report(self._state.logs / "up.log", self._terminal)
            await self._clean()
            self._warn()
            ports.require_free(self._config.server.host, self._config.server.port)
            with self._signals():
                await self._supervise(lambda answering: on_ready(self._ready(answering, begun)))
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin to stop; said a second time, everything is killed at once."""
        if self._stopping.is_set():
            for child in self._children.values():
                child.kill()
        self._stopping.set()

    def _ready(self, answering: Answering, begun: float) -> Ready:
        return Ready(self._config.server.url, time.monotonic() - begun, answering.first_token, answering.login)

    async def _supervise(self, on_ready: Callable[[Answering], None]) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            keeper = group.create_task(self._keep_files())
            engines = Engines(self._config, self._state, parts.environment(self._loaded, self._state), self)
            start = group.create_task(self._start(on_ready, engines))
            follower = group.create_task(engines.follow())
            await self._stopping.wait()
            start.cancel()
            follower.cancel()
            await self._shut_down()
            keeper.cancel()

    async def _start(self, on_ready: Callable[[Answering], None], engines: Engines) -> None:
        bringup = BringUp(self._loaded, self._state, self._report, self.launch, engines)
        try:
            await bringup.run(on_ready)
        except LLMAgentOSError as error:
            self._failure = error
            self.stop()
        except OSError as error:
            self._failure = unusable(self._state.root, error)
            self.stop()

    def launch(self, spec: ChildSpec) -> Child:
        """Start a child and keep it running."""
        child = Child(spec, say=self._report.say, changed=self._record)
        self._children[spec.name] = child
        self._group.create_task(child.run())
        return child

    async def end(self, child: Child) -> None:
        """Stop a child for good."""
        await _stop([child], REST_STOP_S)
        self._children.pop(child.spec.name, None)
        self._record()

    async def _shut_down(self) -> None:
        if self._failure is None:
            self._report.say(tr("stopping ..."))
        begun = time.monotonic()
        nodes = [child for child in self._children.values() if child.spec.name == parts.NODE]
        await _stop(nodes, NODE_STOP_S)
        await _stop(list(self._children.values()), REST_STOP_S)
        for job in running(self._state.node / "jobs"):
            self._report.say(runs_on(job))
        if self._failure is None:
            self._report.say(tr("stopped after {seconds} s", seconds=f"{time.monotonic() - begun:.1f}"))

    async def _clean(self) -> None:
        for name in await strays.end(self._state):
            self._report.say(tr("ended {name}, left over from a supervisor that was killed", name=name))
        strays.clear(self._state)

    def _warn(self) -> None:
        for warning in self._loaded.warnings:
            self._report.say(tr("warning: {warning}", warning=warning))
        free = shutil.disk_usage(self._state.root).free
        if free < _DISK_LOW_BYTES:
            self._report.say(
                tr(
                    "warning: only {mib} MiB are free below {path}; when the disk is full new work is refused, "
                    "nothing acknowledged is lost",
                    mib=free // (1024 * 1024),
                    path=self._state.root,
                )
            )

    def _record(self) -> None:
        try:
            self._state.record(child.status for child in self._children.values())
            self._unrecorded = False
        except OSError:  # the disk is full: what runs goes on, and is written down once there is room
            self._unrecorded = True

    async def _keep_files(self) -> None:
        """Logs within their size, and what could not be written down at its time."""
        log = self._config.log
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            if self._unrecorded:
                self._record()
            for path in [self._state.logs / "up.log", *(child.spec.log for child in self._children.values())]:
                await asyncio.to_thread(logfile.rotate, path, most_bytes=log.file_bytes, files=log.files)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


def runs_on(job: int) -> str:
    """What is said of a playbook that stopping leaves running."""
    return tr("job {job}: its playbook runs on to its end, which the next `llmctl up` collects", job=job)


async def _stop(children: list[Child], seconds: float) -> None:
    """SIGTERM to all, SIGKILL to those that are still there after `seconds`."""
    for child in children:
        child.stop()
    try:
        async with asyncio.timeout(seconds):
            for child in children:
                await child.ended.wait()
    except TimeoutError:
        for child in children:
            child.kill()
        for child in children:
            await child.ended.wait()

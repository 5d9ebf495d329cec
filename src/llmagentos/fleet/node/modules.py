"""Keeps the modules running that the units describe: started, restarted on change and death, stopped with the unit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from llmagentos.api.nodes import ModuleUnit, UnitState
from llmagentos.core import log, logfile, metrics
from llmagentos.core.child import Child, ChildSpec
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.files import write_whole
from llmagentos.fleet.node.insist import insist
from llmagentos.fleet.node.units import Scanner, Wanted

SCAN_S = 0.5
ALLOWED_S = 10.0
"""How often a module that the node may not run is asked for again: somebody may allow it."""
STOP_S = 4.0
"""Grace of a module before it is killed: below what `llmctl down` grants the node agent."""
LOG_BYTES = 10 * 1024 * 1024
LOG_FILES = 3
_OURS = "LLMAGENTOS_"
_PASSED_ON = ("LLMAGENTOS_OTLP", "LLMAGENTOS_LANG")
_log = log.get(__name__)


class Module:
    """One module as one version of its unit wants it."""

    def __init__(self, wanted: Wanted, spec: ChildSpec | None, token: Callable[[], Awaitable[None]]) -> None:
        self.wanted = wanted
        self._child = Child(spec, say=self._say, changed=self._changed) if spec is not None else None
        self._token = token
        self._waiting: str | None = None
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @property
    def stopped(self) -> bool:
        """Whether `stop` ended it."""
        return self._stopped

    def start(self) -> None:
        """Run it until `stop`, in the background."""
        if self._child is not None:
            self._task = asyncio.create_task(self._run(self._child))

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL to its group after `STOP_S`."""
        if self._child is None or self._task is None:
            return
        self._stopped = True
        self._waiting = None
        self._child.stop()
        try:
            async with asyncio.timeout(STOP_S):
                await self._child.ended.wait()
        except TimeoutError:
            _log.warning("module did not stop; killing it", module=self.wanted.name)
            self._child.kill()
            await self._child.ended.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def status(self) -> ModuleUnit:
        """What the heartbeat says of it."""
        if self._child is None:
            return ModuleUnit(self.wanted.name, "failed", message=(self.wanted.fault or "")[:255])
        seen = self._child.status
        state: UnitState = seen.state if self._waiting is None else "starting"
        message = self._waiting or (seen.last_exit if state != "running" else None)
        return ModuleUnit(self.wanted.name, state, seen.pid, seen.restarts, seen.started, (message or "")[:255] or None)

    async def _run(self, child: Child) -> None:
        self._waiting = "waiting for its token"
        refused = False
        while True:
            try:
                await self._token()
            except (LLMAgentOSError, OSError) as error:
                if not refused:
                    _log.error("no token for the module", module=self.wanted.name, error=str(error))
                refused = True
                self._waiting = _why(error)
                await asyncio.sleep(ALLOWED_S)
            else:
                break
        self._waiting = None
        await child.run()

    def _say(self, text: str) -> None:
        _log.warning("module died", module=self.wanted.name, what=text)
        metrics.NODE_MODULE_RESTARTS.inc()

    def _changed(self) -> None:
        assert self._child is not None
        _log.debug("module", module=self.wanted.name, state=self._child.status.state, pid=self._child.status.pid)


def _why(error: LLMAgentOSError | OSError) -> str:
    if isinstance(error, OSError):
        return f"its token cannot be kept: {error.strerror or error}"
    return f"the server gives it no token: {error}" + (f" ({error.hint})" if error.hint else "")


class Modules:
    """All modules of this node. `token` gets one for a module from the server."""

    def __init__(
        self, units: Path, directory: Path, *, token: Callable[[str], Awaitable[str]], environ: Mapping[str, str]
    ) -> None:
        self._scanner = Scanner(units)
        self._directory = directory
        self._token = token
        self._environ = dict(environ)
        self._kept: dict[str, Module] = {}
        self._seen: dict[str, str] = {}
        self._draining = False

    async def run(self) -> None:
        """Keep them until cancelled; `stop` ends them."""
        while True:
            try:
                if self._draining:
                    await self._drain()
                else:
                    await self._reconcile(await asyncio.to_thread(self._scanner.scan))
                await asyncio.to_thread(self._keep_logs_small, [*self._kept])
            except OSError as error:  # a full disk must not end the modules that run
                _log.error("modules.d cannot be looked after", error=str(error))
            await asyncio.sleep(SCAN_S)

    def _keep_logs_small(self, names: list[str]) -> None:
        for name in names:
            logfile.rotate(self._log(name), most_bytes=LOG_BYTES, files=LOG_FILES)

    async def stop(self) -> None:
        """Stop all, at the same time."""
        await asyncio.gather(*(module.stop() for module in self._kept.values()))

    def heed(self, drain: bool) -> None:
        """Whether the node is to be drained: its modules are stopped, one after the other, the last started first."""
        if drain != self._draining:
            _log.info("modules are stopped: the node is drained" if drain else "modules run again: drained no more")
            self._draining = drain
            self._seen = {}

    async def _drain(self) -> None:
        for name, module in reversed([*self._kept.items()]):
            if self._draining and not module.stopped:
                _log.info("module is stopped", module=name)
                await module.stop()

    def status(self) -> list[ModuleUnit]:
        """What the heartbeat says."""
        return [module.status() for _, module in sorted(self._kept.items())]

    async def _reconcile(self, wanted: Mapping[str, Wanted]) -> None:
        # A playbook writes several files one after the other: act once they have stayed as they are.
        settled = [name for name in wanted if self._seen.get(name) == wanted[name].version]
        self._seen = {name: each.version for name, each in wanted.items()}
        gone = [name for name in self._kept if name not in wanted]
        changed = [
            name
            for name in settled
            if name in self._kept and (self._kept[name].wanted != wanted[name] or self._kept[name].stopped)
        ]
        await asyncio.gather(*(self._kept[name].stop() for name in gone + changed))
        for name in gone:
            _log.info("module removed", module=name)
            del self._kept[name]
        for name in changed + [name for name in settled if name not in self._kept]:
            _log.info("module restarts with what changed" if name in changed else "module starts", module=name)
            self._kept[name] = self._module(wanted[name])
            self._kept[name].start()

    def _module(self, wanted: Wanted) -> Module:
        if wanted.unit is None:
            _log.error("module unit refused", module=wanted.name, error=wanted.fault)
            return Module(wanted, None, lambda: self._keep_token(wanted.name))
        (self._directory / wanted.name).mkdir(exist_ok=True, mode=0o700)
        spec = ChildSpec(
            wanted.name,
            tuple(wanted.unit.command),
            self._log(wanted.name),
            {**self._environ, "LLMAGENTOS_TOKEN_FILE": str(self._token_file(wanted.name)), **wanted.unit.env},
            directory=wanted.directory,
        )
        return Module(wanted, spec, lambda: self._keep_token(wanted.name))

    async def _keep_token(self, name: str) -> None:
        token = await insist(lambda: self._token(name), what="module token")
        await asyncio.to_thread(write_whole, self._token_file(name), token.encode() + b"\n")

    def _token_file(self, name: str) -> Path:
        return self._directory / name / "token"

    def _log(self, name: str) -> Path:
        return self._directory / name / "module.log"


def environment(server: str, ca: Path | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of every module: where the server is, and nobody else's credentials."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_OURS) or name in _PASSED_ON}
    found = kept | {"LLMAGENTOS_SERVER": server, "PYTHONUNBUFFERED": "1"}
    return found | ({"LLMAGENTOS_CA": str(ca)} if ca is not None else {})

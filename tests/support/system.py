"""A system as `llmctl up` starts it, in a directory of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.server import environment, free_port, llmctl_beside


class System:
    """A directory with a configuration in which `llmctl` is called."""

    def __init__(self, directory: Path, config: str) -> None:
        self.directory = directory
        self.state = directory / ".llmagentos"
        (directory / "llmagentos.yaml").write_text(config)
        self.env = environment(
            LLMAGENTOS_SERVER_ADDRESS=f"127.0.0.1:{free_port()}", XDG_CONFIG_HOME=str(directory / "config")
        )

    def llmctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llmagentos.cli.main", *arguments],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`llmctl` beside this process, both its outputs in one pipe."""
        return llmctl_beside(self.directory, self.env, *arguments, stderr=subprocess.STDOUT)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.llmctl("status", "--json").stdout)
        return found

    def process(self, name: str) -> dict[str, Any]:
        (found,) = [process for process in self.status()["processes"] if process["name"] == name]
        return dict(found)

    def supervisor(self) -> int:
        return int(self.status()["supervisor"]["pid"])


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found

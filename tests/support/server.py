"""What tests stand on: a real server in a process of its own, and waiting without sleeping for luck."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

from llmagentos.api.client import ApiClient
from llmagentos.core import discovery

READY_S = 60.0
END_S = 40.0
_PORTS = range(10_000, 32_000)
"""Below those that systems hand out by themselves, for a `bind` to 0 or a `connect`."""
_turns = count(os.getpid() * 997)


def free_port() -> int:
    """A TCP port that nobody listens on now, another one each time; one that nobody gets who asks for any.

    So nobody else has it when it is used at last, or while whoever listens on it is killed and started again.
    """
    for turn in _turns:
        port = _PORTS[turn % len(_PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("counting has no end")


def environment(**more: str) -> dict[str, str]:
    """The environment without any LLMAgentOS variable of this machine, and with `more`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LLMAGENTOS_")}
    return (
        clean
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LLMAGENTOS_LANG": "en",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }
        | more
    )


def llmctl_beside(
    directory: Path, env: Mapping[str, str], *arguments: str, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """`llmctl` beside the test, in `directory`."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmagentos.cli.main", *arguments],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


class ServerProcess:
    """A server in a process of its own, which can be killed and started again on the same state and port."""

    def __init__(
        self,
        directory: Path,
        config: str = "",
        *,
        database: str | None = None,
        host: str = "127.0.0.1",
        ca: Path | None = None,
    ) -> None:
        """`ca`: the CA of its certificate, for a `config` with `tls`."""
        self.directory = directory
        self.state = directory / ".llmagentos"
        self.host = host
        self.port = free_port()
        self.ca = ca
        self.url = f"{'https' if ca else 'http'}://{host}:{self.port}"
        self.file = directory / "llmagentos.yaml"
        self.file.write_text(config)
        self.env = environment(
            LLMAGENTOS_STATE=str(self.state),
            LLMAGENTOS_CONFIG=str(self.file),
            LLMAGENTOS_SERVER_ADDRESS=f"{host}:{self.port}",
            XDG_CONFIG_HOME=str(directory / "config"),
        )
        self.database = database or f"sqlite:///{self.state / 'llmagentos.db'}"
        if database is not None:
            self.env["LLMAGENTOS_DATABASE"] = database
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        """Start it and wait until it answers."""
        log = (self.directory / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmagentos.server"], cwd=self.directory, env=self.env, stdout=log, stderr=log
        )
        log.close()
        deadline = time.monotonic() + READY_S
        while not self._answers():
            code = self.process.poll()
            assert code is None, f"the server ended with {code}:\n{self.log()}"
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.log()}"
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1):
                return (self.state / discovery.CREDENTIALS).exists()
        except OSError:
            return False

    def kill(self) -> None:
        """`kill -9`."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(END_S)

    def log(self) -> str:
        """What it wrote."""
        return (self.directory / "server.log").read_text(errors="replace")

    @property
    def token(self) -> str:
        """The admin token."""
        return discovery.read(self.state / discovery.CREDENTIALS).token

    @asynccontextmanager
    async def client(self, token: str | None = None, *, timeout: float = 30.0) -> AsyncIterator[ApiClient]:
        """A client with the admin's token, or another one."""
        used = discovery.Credentials(self.url, self.token if token is None else token, self.ca)
        async with ApiClient(self.url, used.token, tls=used.tls(), timeout=timeout) as client:
            yield client

    def llmctl(self, *arguments: str, timeout: float = 100.0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `llmctl` against it."""
        return subprocess.run(
            [sys.executable, "-m", "llmagentos.cli.main", *arguments],
            cwd=self.directory,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


StartServer = Callable[..., ServerProcess]


async def eventually(condition: Callable[[], object], *, within: float = 40.0) -> None:
    """Wait until `condition()` is true; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.02)

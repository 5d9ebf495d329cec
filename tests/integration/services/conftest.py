"""Module processes beside a real server."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.server import END_S, ServerProcess

HELLO = '''
import asyncio, os, time
from dataclasses import dataclass

from llmagentos import Module, Service, ServiceClient, idempotent
from llmagentos.services import context


@dataclass
class Point:
    x: int
    y: int = 0


class HelloService(Service):
    """Says hello."""

    def say_hello(self, name):
        return f"Hello, {name}!"

    async def echo(self, text: str) -> str:
        return text

    @idempotent
    async def where(self, delay: float = 0.0) -> int:
        await asyncio.sleep(delay)
        return os.getpid()

    async def once(self, delay: float = 0.0, mark: str = "") -> int:
        if mark:
            with open(mark, "a") as begun:
                begun.write(f"{os.getpid()}\\n")
        await asyncio.sleep(delay)
        return os.getpid()

    def move(self, point: Point, by: list[int]) -> Point:
        return Point(point.x + by[0], point.y + by[1])

    def count(self, n: int):
        for i in range(n):
            yield i

    async def acount(self, n: int, fail_at: int = -1):
        for i in range(n):
            if i == fail_at:
                raise RuntimeError("enough")
            yield {"i": i}

    def fail(self):
        raise LookupError("nothing here")

    async def never(self):
        await asyncio.Event().wait()

    async def endless(self, mark: str):
        try:
            while True:
                yield "x" * 10_000
                await asyncio.sleep(0.001)
        finally:
            open(mark, "w").close()

    async def held(self, mark: str):
        open(mark + ".begun", "w").close()
        try:
            await asyncio.sleep(60)
        finally:
            open(mark, "w").close()

    async def left(self) -> dict:
        call = context.current()
        return {"seconds": call.deadline - time.monotonic(), "caller": str(call.caller), "run": call.run_id}

    async def nested(self) -> dict:
        with context.serving_run("run1"):
            return await ServiceClient("hello-service").acall("left")

    def nested_plain(self) -> str:
        return ServiceClient("hello-service").call("say_hello", name="nested")


module = Module("hello-service")
module.register_service(HelloService)
module.start()
'''


class ModuleProcess:
    """A module in a process of its own."""

    def __init__(self, server: ServerProcess, directory: Path, source: str, env: dict[str, str]) -> None:
        self.file = directory / "module.py"
        self.file.write_text(source)
        self.output = directory / "module.log"
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.file)], cwd=directory, env=server.env | env, stdout=log, stderr=log
            )
        self.pid = self.process.pid

    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def registered(self, times: int = 1, within: float = 40.0) -> ModuleProcess:
        """Wait until it has registered so many times."""
        deadline = time.monotonic() + within
        while self.log().count('"registered"') < times:
            assert self.process.poll() is None, f"the module ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"not registered:\n{self.log()}"
            time.sleep(0.02)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(END_S)


StartModule = Callable[..., ModuleProcess]


@pytest.fixture
def start_module_of(tmp_path: Path) -> Iterator[StartModule]:
    """Starts module processes: `start_module_of(server, source, **environment)`; they end with the test."""
    started: list[ModuleProcess] = []

    def start(server: ServerProcess, source: str = HELLO, *, wait: bool = True, **env: str) -> ModuleProcess:
        directory = tmp_path / f"module{len(started)}"
        directory.mkdir()
        module = ModuleProcess(server, directory, source, env)
        started.append(module)
        return module.registered() if wait else module

    yield start
    for module in started:
        if module.process.poll() is None:
            module.process.kill()
            module.process.wait(10)


@pytest.fixture
def start_module(server: ServerProcess, start_module_of: StartModule) -> StartModule:
    """Starts module processes: `start_module(source, **environment)`; they end with the test."""
    return partial(start_module_of, server)


@pytest.fixture
def consumer(server: ServerProcess, tmp_path: Path) -> Callable[[str], str]:
    """Runs a program that uses the SDK, warnings being errors; what it printed."""

    def run(source: str, timeout: float = 100.0) -> str:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", source],
            cwd=tmp_path,
            env=server.env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == "", done.stderr
        return done.stdout

    return run

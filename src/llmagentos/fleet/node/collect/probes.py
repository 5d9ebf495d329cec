"""Runs probes: shell commands whose output is measured, each on its own beat."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

from llmagentos.api.telemetry import SERIES
from llmagentos.core import log
from llmagentos.core.lifecycle import reap
from llmagentos.fleet.node.collect.readings import series
from llmagentos.fleet.node.collect.wanted import Probe

MAX_OUTPUT = 64 * 1024
MAX_VALUES = 200
_log = log.get(__name__)


class Probes:
    """Keeps the last values of every probe; a probe that fails keeps only that it failed."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[Probe, asyncio.Task[None]]] = {}
        self._values: dict[str, dict[str, float]] = {}

    def want(self, probes: Mapping[str, Probe]) -> None:
        """Run these and no others."""
        for name, (probe, task) in list(self._running.items()):
            if probes.get(name) != probe:
                task.cancel()
                del self._running[name]
                self._values.pop(name, None)
        for name, probe in probes.items():
            if name not in self._running:
                self._running[name] = (probe, asyncio.create_task(self._repeat(name, probe)))

    def values(self) -> dict[str, float]:
        """The last values of all."""
        return {name: value for found in self._values.values() for name, value in found.items()}

    async def close(self) -> None:
        """End all."""
        tasks = [task for _, task in self._running.values()]
        self.want({})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, name: str, probe: Probe) -> None:
        while True:
            began = time.monotonic()
            try:
                found = parse(name, await output(probe))
                self._values[name] = found | {series("probe_success", probe=name): 1.0}
            except (OSError, ValueError, TimeoutError) as error:
                if self._values.get(name, {}).get(series("probe_success", probe=name)) != 0.0:
                    _log.warning("probe failed", probe=name, error=str(error) or type(error).__name__)
                self._values[name] = {series("probe_success", probe=name): 0.0}
            took = time.monotonic() - began
            self._values[name][series("probe_duration_seconds", probe=name)] = took
            await asyncio.sleep(max(0.0, probe.every - took))


async def output(probe: Probe) -> str:
    """What the command prints. Raises `TimeoutError`, `ValueError` when it fails or prints too much."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        probe.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        limit=MAX_OUTPUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(probe.timeout):
            text = b""
            while piece := await process.stdout.read(MAX_OUTPUT):
                text += piece
                if len(text) > MAX_OUTPUT:
                    raise ValueError(f"it printed over {MAX_OUTPUT} bytes")
            code = await process.wait()
    except TimeoutError:
        raise TimeoutError(f"it took over {probe.timeout:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it left behind
        await reap(process)
    if code != 0:
        raise ValueError(f"it ended with exit code {code}")
    return text.decode("utf-8", "replace")


def parse(name: str, text: str) -> dict[str, float]:
    """Values of a probe's output: a number alone is `probe_<name>`. Raises `ValueError`."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) > MAX_VALUES:
        raise ValueError(f"it printed over {MAX_VALUES} values")
    found: dict[str, float] = {}
    for line in lines:
        label, _, number = line.rpartition(" ")
        label = label.strip() or f"probe_{name}"
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"{line[:80]!r} is neither a number nor `name value`") from None
        if not SERIES.fullmatch(label) or not math.isfinite(value):
            raise ValueError(f"{line[:80]!r} is not a finite value with a name as Prometheus takes it")
        found[label] = value
    if not found:
        raise ValueError("it printed nothing")
    return found

"""How long `llmctl --help` takes, when `llmctl up` is ready, and what it holds in memory while idle (no model).

Peers in the same run: the bare interpreter, and the same interpreter importing click.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LLMCTL = str(Path(sys.executable).parent / "llmctl")
ROUNDS = 15
IDLE_S = 5.0


def milliseconds(*argv: str) -> float:
    """The median of `ROUNDS` runs of a command, after one that warms the disk's cache."""
    times = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times[1:])


def idle() -> tuple[float, dict[str, float]]:
    """Seconds until `up` is ready on a fresh state, and the memory of each process in MiB (PSS) a while later."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "llmagentos.yaml").write_text("models: {}\nserver: {address: '127.0.0.1:7097'}\n")
        env = {k: v for k, v in os.environ.items() if not k.startswith("LLMAGENTOS_")} | {"XDG_CONFIG_HOME": directory}
        begun = time.perf_counter()
        subprocess.run([LLMCTL, "up", "--detach"], cwd=directory, env=env, check=True, capture_output=True)
        ready = time.perf_counter() - begun
        try:
            time.sleep(IDLE_S)
            shown = subprocess.run(
                [LLMCTL, "status", "--json"], cwd=directory, env=env, capture_output=True, check=True
            )
            status = json.loads(shown.stdout)
            pids = {p["name"]: p["pid"] for p in status["processes"]} | {"supervisor": status["supervisor"]["pid"]}
            memory = {name: psutil.Process(pid).memory_full_info().pss / 1048576 for name, pid in pids.items()}
        finally:
            subprocess.run([LLMCTL, "down"], cwd=directory, env=env, check=True, capture_output=True)
    return ready, memory


def main() -> None:
    """Print the figures and their ratios."""
    python = milliseconds(sys.executable, "-c", "pass")
    click = milliseconds(sys.executable, "-c", "import click")
    ours = milliseconds(LLMCTL, "--help")
    print(f"python -c pass {python:.0f} ms, import click {click:.0f} ms, llmctl --help {ours:.0f} ms (goal: under 150)")
    print(f"llmctl --help / import click: {ours / click:.2f}")
    ready, memory = idle()
    print(f"up --detach on a fresh state: ready after {ready:.1f} s (goal: under 5)")
    parts = ", ".join(f"{name} {size:.0f}" for name, size in memory.items())
    print(f"idle without a model: {sum(memory.values()):.0f} MiB in all ({parts})")


if __name__ == "__main__":
    main()

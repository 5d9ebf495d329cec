"""One playbook, one machine, by us and by the peers: seconds, ratios, and whether each result is the same.

`benchmarks/playbooks/site.yml` (31 tasks, 2 handlers, 46 module executions) is run with the local connection by
`ansible-playbook` of the same ansible-core, by Mitogen 0.3.54 (its own virtual environment), by our runner
started anew and forked of the warm process, and by `llmctl run` on a server with a node, from the command to its
prompt. pyinfra does the same operations (`deploy.py`). Figures are medians of `ROUNDS`, taken in turns. What each
task registered is compared as JSON with what it registered under ansible-playbook.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmagentos.api.jobs import Inventory, NodeJob
from llmagentos.fleet.node.jobdir import JobDirectory
from llmagentos.fleet.node.phases import Phase
from llmagentos.fleet.node.runner import Runner
from llmagentos.fleet.node.spec import runner_spec
from llmagentos.fleet.node.warm import Warm

ROUNDS = 3
MITOGEN, PYINFRA = "0.3.54", "3.10.0"
GOALS = {"ansible-playbook": 10.0, "mitogen": 4.0, "pyinfra": 1.0}
PORT = 7098
BIN = Path(sys.executable).parent
PLAYBOOKS = Path(__file__).parent / "playbooks"
# What differs from run to run by its nature.
_VARYING = {"start", "end", "delta", "atime", "mtime", "ctime", "inode", "dev", "version"}
_TEMPORARY = re.compile(
    r"\S*(ansible-tmp-[0-9.]+-\d+-\d+|ansible_mitogen_action_\w+|ansible-local-\w+)|^\.[a-z0-9_]{8}$"
)

Run = Callable[[Path], None]


def normal(value: Any) -> Any:
    """A result without what differs by its nature: times, inodes, names of temporary files."""
    if isinstance(value, dict):
        return {name: normal(each) for name, each in value.items() if name not in _VARYING}
    if isinstance(value, list):
        return [normal(each) for each in value]
    return _TEMPORARY.sub("TMP", value) if isinstance(value, str) else value


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two results differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted({*one, *other})
        return [d for name in names for d in differences(one.get(name, "-"), other.get(name, "-"), f"{where}.{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for n, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{where}[{n}]")]
    return [] if one == other else [f"{where}: {one!r} / {other!r}"]


def command(*argv: object, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run it; what it printed is shown when it fails."""
    done = subprocess.run([*map(str, argv)], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{argv[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def peer(name: str, *requirements: str) -> Path | str:
    """The `bin` of a virtual environment with a peer, made once; or why it cannot be had."""
    directory = Path(sys.prefix) / "peers" / name
    ready = directory / ("-".join(requirements).replace("=", "") + ".ready")
    if not ready.exists():
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True)
        install = [directory / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        done = subprocess.run([*map(str, install)], capture_output=True, text=True)
        if done.returncode:
            return f"pip could not install it: {done.stderr.strip().splitlines()[-1]}"
        ready.touch()
    return directory / "bin"


def ansible_playbook(binaries: Path, home: Path, **settings: str) -> Run:
    """`ansible-playbook`, with the interpreter named, so that no peer has to look for one."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": str(binaries / "python")}
    inventory = home / f"inventory-{binaries.parent.name}.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"bench": host}}}))
    env = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(home / "ansible"), **settings}
    argv = (binaries / "ansible-playbook", "-i", inventory, "-e", f"base={home / 'out'}", "site.yml")
    return lambda here: command(*argv, cwd=here, env=env)


def mitogen(home: Path) -> Run | str:
    """The strategy plugin, with the same ansible-core."""
    binaries = peer("mitogen", f"ansible-core=={version('ansible-core')}", f"mitogen=={MITOGEN}")
    if isinstance(binaries, str):
        return binaries
    (plugins,) = binaries.parent.glob("lib/*/site-packages/ansible_mitogen/plugins/strategy")
    return ansible_playbook(binaries, home, ANSIBLE_STRATEGY_PLUGINS=str(plugins), ANSIBLE_STRATEGY="mitogen_linear")


def pyinfra(home: Path) -> Run | str:
    """The same operations."""
    binaries = peer("pyinfra", f"pyinfra=={PYINFRA}")
    if isinstance(binaries, str):
        return binaries
    env = {"BENCH_BASE": str(home / "out")}
    return lambda here: command(binaries / "pyinfra", "-y", "@local", "deploy.py", cwd=here, env=env)


def runner(home: Path, warm: Warm | None) -> Run:
    """Our runner, as the node agent starts it, until it has ended."""

    def run(here: Path) -> None:
        directory = JobDirectory(here.parent)
        for left in directory.root.glob("*.json*"):
            left.unlink()
        given = {"base": str(home / "out")}
        job = NodeJob(1, 1, "bench", "", "site.yml", Inventory(hostvars={"bench": {}}), extra_vars=given)
        directory.write_spec(runner_spec(job, home=str(home / "ansible"), variables={}))
        started = Runner(directory, warm)
        started.start()
        while directory.phase() is Phase.RUNNING:
            started.reap()
            time.sleep(0.005)
        if (found := directory.exit()) is None or found.code:
            sys.exit(f"the runner failed: {found}\n{directory.output.read_text()}")
        while directory.locked():  # its fork server ends a moment after it; the next run is in the same directory
            time.sleep(0.005)

    return run


@contextmanager
def server(home: Path) -> Iterator[Run]:
    """`llmctl run` on a server with its node, in a directory of its own."""
    (home / "llmagentos.yaml").write_text(f"models: {{}}\nserver: {{address: '127.0.0.1:{PORT}'}}\n")
    env = {"LLMAGENTOS_STATE": str(home / ".llmagentos"), "XDG_CONFIG_HOME": str(home)}
    command(BIN / "llmctl", "up", "--detach", cwd=home, env=env)
    try:
        yield lambda here: command(BIN / "llmctl", "run", "site.yml", "-e", f"base={home / 'out'}", cwd=here, env=env)
    finally:
        command(BIN / "llmctl", "down", cwd=home, env=env)


def once(run: Run, here: Path) -> tuple[float, Any]:
    """Seconds, and what was registered (nothing for pyinfra); on the same, empty directory each time."""
    out = here.parent.parent / "out"
    for left in (here, out):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(PLAYBOOKS, here)
    begun = time.perf_counter()
    run(here)
    seconds = time.perf_counter() - begun
    results = out / "results.json"
    return seconds, normal(json.loads(results.read_text())) if results.exists() else None


def main() -> None:
    """Measure, compare, print."""
    with tempfile.TemporaryDirectory(prefix="bench-playbooks-") as directory:
        home = Path(directory)
        here = home / "job" / "bundle"
        warm = Warm(home / "ansible", home / "warm.log")
        warm.prepare()
        with server(home) as llmctl_run:
            contestants: dict[str, Run | str] = {
                "ansible-playbook": ansible_playbook(BIN, home),
                "mitogen": mitogen(home),
                "pyinfra": pyinfra(home),
                "ours, runner anew": runner(home, None),
                "ours, warm": runner(home, warm),
                "ours, llmctl run": llmctl_run,
            }
            measured = rounds(contestants, here)
        warm.close()
    report(contestants, measured)


def rounds(contestants: Mapping[str, Run | str], here: Path) -> dict[str, list[tuple[float, Any]]]:
    """All in turns, so that the machine's other work falls on all."""
    measured: dict[str, list[tuple[float, Any]]] = {}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            if not isinstance(run, str):
                measured.setdefault(name, []).append(once(run, here))
    return measured


def report(contestants: Mapping[str, Run | str], measured: Mapping[str, list[tuple[float, Any]]]) -> None:
    """Print seconds, ratios against the goals, and differences in results. Ends with 1 when there are any."""
    median = {name: statistics.median(seconds for seconds, _ in found) for name, found in measured.items()}
    for name, run in contestants.items():
        if isinstance(run, str):
            print(f"{name:18} skipped: {run}")
        else:
            every = ", ".join(f"{seconds:.2f}" for seconds, _ in measured[name])
            print(f"{name:18} {median[name]:6.2f} s   ({every})")
    for name, goal in GOALS.items():
        if name in median:
            each = ", ".join(
                f"{our.removeprefix('ours, ')} {median[name] / median[our]:.1f}" for our in median if "ours" in our
            )
            print(f"times faster than {name}: {each} (goal: {goal:g})")
    told = measured["ansible-playbook"][0][1]
    wrong = 0
    for name, found in measured.items():
        if found[0][1] is not None and name != "ansible-playbook":
            different = [each for _, results in found for each in differences(told, results)]
            print(f"results of {name}: {'as of ansible-playbook' if not different else f'{len(different)} differ'}")
            print("".join(f"  {each[:300]}\n" for each in different[:5]), end="")
            wrong += len(different) * ("ours" in name)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

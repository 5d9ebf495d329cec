"""Runs integration targets of ansible-core itself through `ansible-playbook` and `llmctl run`, and compares verdicts.

`python scripts/ansible_targets.py [--sdist FILE] [--most N] [TARGET ...]` picks the targets in ansible-core's source
distribution (of the installed release, from PyPI) that are roles, run on any machine and change nothing on it but
files; runs each both ways, one after the other, with a server and a node of its own; prints the table as Markdown.
Exit code 1 when a verdict differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

BIN = Path(sys.executable).parent
HOST = "testhost"
TIMEOUT_S = 240
COUNTS = ("ok", "changed", "unreachable", "failed", "skipped", "rescued", "ignored")
# What a target says of itself (`aliases`) that it needs or does to the machine.
NOT = re.compile(r"needs/|destructive|disabled|hidden|windows|cloud/|unsupported|context/controller/.*ssh")
HELPERS = re.compile(r"\b(setup_\w+|prepare_\w+)\b")
PLAY = """\
- hosts: testhost
  gather_facts: true
  roles:
    - role: TARGET
"""
_RECAP = re.compile(r"^(\S+)\s+: " + r"\s+".join(rf"{name}=(\d+)" for name in COUNTS), re.M)


@dataclass
class Verdict:
    """How one way ended."""

    code: int | None
    recap: dict[str, tuple[int, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    said: str = ""

    def shown(self) -> str:
        """Code and counts of the host in a cell."""
        counts = self.recap.get(HOST)
        told = " ".join(f"{name}={n}" for name, n in zip(COUNTS, counts, strict=True) if n) if counts else "-"
        return f"{'timeout' if self.code is None else self.code}: {told}"


def source(given: Path | None, directory: Path) -> Path:
    """The directory of the targets."""
    if given is None:
        release = f"ansible-core=={version('ansible-core')}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--no-build-isolation", release], cwd=directory, check=True)
        given = next(directory.glob("ansible_core-*.tar.gz"))
    with tarfile.open(given) as archive:
        archive.extractall(directory, filter="data")
    return next(directory.glob("ansible_core-*/test/integration/targets"))


def eligible(targets: Path) -> list[str]:
    """Targets that are a role, and that say nothing against being run here."""
    found = []
    for path in sorted(targets.iterdir()):
        aliases = (path / "aliases").read_text() if (path / "aliases").is_file() else ""
        role = (path / "tasks" / "main.yml").is_file() and not (path / "runme.sh").exists()
        if role and not NOT.search(aliases) and not path.name.startswith(("setup_", "prepare_", "incidental_", "win_")):
            found.append(path.name)
    return found


def prepare(targets: Path, name: str, directory: Path) -> None:
    """The playbook of one target, with the roles that it needs."""
    (directory / "roles").mkdir(parents=True)
    waiting, copied = [name], set()
    while waiting:
        role = waiting.pop()
        if role in copied or not (targets / role).is_dir():
            continue
        copied.add(role)
        shutil.copytree(targets / role, directory / "roles" / role, symlinks=False, ignore_dangling_symlinks=True)
        for path in (targets / role).rglob("*.yml"):
            waiting += HELPERS.findall(path.read_text("utf-8", "replace"))
    (directory / "site.yml").write_text(PLAY.replace("TARGET", name))
    interpreter = f"ansible_python_interpreter={sys.executable}"
    (directory / "inventory").write_text(f"[testgroup]\n{HOST} ansible_connection=local {interpreter}\n")


def recap(text: str) -> dict[str, tuple[int, ...]]:
    """`PLAY RECAP`."""
    return {found[1]: tuple(map(int, found.groups()[1:])) for found in _RECAP.finditer(text)}


def run(command: Sequence[str | Path], directory: Path, environ: dict[str, str]) -> Verdict:
    """One way."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Verdict(None, seconds=TIMEOUT_S)
    return Verdict(
        done.returncode, recap(done.stdout), time.monotonic() - begun, done.stdout[-3000:] + done.stderr[-3000:]
    )


def compare(targets: Path, name: str, work: Path, environ: dict[str, str]) -> tuple[Verdict, Verdict]:
    """Both ways, from the same files."""
    verdicts = []
    for way in ("ansible", "llmctl"):
        directory = work / f"{name}-{way}"
        prepare(targets, name, directory)
        out = work / f"{name}-{way}-out"
        out.mkdir()
        program: list[str | Path] = [BIN / "ansible-playbook"] if way == "ansible" else [BIN / "llmctl", "run"]
        command = [*program, "-i", "inventory", "-e", json.dumps({"output_dir": str(out)}), "site.yml"]
        verdicts.append(run(command, directory, environ))
        shutil.rmtree(directory)
    return verdicts[0], verdicts[1]


def started(work: Path, environ: dict[str, str]) -> None:
    """A server, with this machine as the node `testhost`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = f"server: {{address: 127.0.0.1:{port}}}\nnode: {{name: {HOST}}}\n"
    (work / "llmagentos.yaml").write_text(config)
    subprocess.run([BIN / "llmctl", "up", "--detach"], cwd=work, env=environ, check=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done = subprocess.run([BIN / "llmctl", "nodes", "--json"], cwd=work, env=environ, capture_output=True)
        if done.returncode == 0 and any(node["name"] == HOST for node in json.loads(done.stdout)):
            return
        time.sleep(0.5)
    raise SystemExit("the node does not come up")


def table(rows: Iterable[tuple[str, Verdict, Verdict]]) -> str:
    """As Markdown."""
    lines = ["| target | ansible-playbook | s | llmctl run | s | |", "|---|---|---|---|---|---|"]
    for name, real, ours in rows:
        word = "same" if same(real, ours) else "DIFFERS"
        cells = [name, real.shown(), f"{real.seconds:.1f}", ours.shown(), f"{ours.seconds:.1f}", word]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def same(real: Verdict, ours: Verdict) -> bool:
    """Whether both say the same of the target."""
    return (real.code == 0) == (ours.code == 0) and real.recap == ours.recap


def main() -> int:
    """Compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--sdist", type=Path, help="ansible-core's source distribution, when it is here already")
    parser.add_argument("--most", type=int, default=1000, help="so many targets at most")
    given = parser.parse_args()
    rows: list[tuple[str, Verdict, Verdict]] = []
    with tempfile.TemporaryDirectory(prefix="ansible-targets-") as directory:
        work = Path(directory)
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "LLMAGENTOS_"))
        }
        environ |= {"LLMAGENTOS_STATE": str(work / "state"), "ANSIBLE_HOME": str(work / "home"), "LC_ALL": "C.UTF-8"}
        environ |= {"ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}
        targets = source(given.sdist, work)
        started(work, environ)
        try:
            for name in (given.targets or eligible(targets))[: given.most]:
                real, ours = compare(targets, name, work, environ)
                rows.append((name, real, ours))
                sys.stderr.write(f"{name}: {'same' if same(real, ours) else 'DIFFERS'}\n")
                if not same(real, ours):
                    sys.stderr.write(f"--- ansible-playbook\n{real.said}\n--- llmctl\n{ours.said}\n")
        finally:
            subprocess.run([BIN / "llmctl", "down"], cwd=work, env=environ, capture_output=True)
    equal = sum(same(real, ours) for _, real, ours in rows)
    passed = sum(real.code == 0 for _, real, _ in rows)
    seconds = [sum(verdict.seconds for verdict in way) for way in ([row[1] for row in rows], [row[2] for row in rows])]
    sys.stdout.write(f"{table(rows)}\n\n{len(rows)} targets: {equal} the same ({passed} pass both ways or alone). ")
    sys.stdout.write(f"ansible-playbook {seconds[0]:.0f} s, llmctl run {seconds[1]:.0f} s.\n")
    return 0 if equal == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())

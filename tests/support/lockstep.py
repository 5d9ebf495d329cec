"""Runners of a playbook that spans hosts, with a stand-in for what carries their shares; and the real thing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GROUPS = {"web": ["a", "b"], "db": ["c"]}
HOSTS = ["a", "b", "c"]
_COUNTS = ("ok", "changed", "unreachable", "failed", "skipped", "rescued", "ignored")
_RECAP = re.compile(r"^(\S+)\s+: " + r"\s+".join(rf"{name}=(\d+)" for name in _COUNTS), re.M)


@dataclass
class Ran:
    """How a playbook ended: exit codes and recap by host, what it wrote to the directory `out`."""

    codes: dict[str, int | None] = field(default_factory=dict)
    recap: dict[str, dict[str, int]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def inventory(connections: Mapping[str, str]) -> dict[str, Any]:
    return {
        "all": {
            "hosts": {host: {"ansible_connection": connection} for host, connection in connections.items()},
            "children": {name: {"hosts": {host: {} for host in hosts}} for name, hosts in GROUPS.items()},
            "vars": {"ansible_python_interpreter": sys.executable},
        }
    }


class Runners:
    """One runner a host, each in a directory below `root`."""

    def __init__(
        self, root: Path, files: Mapping[str, bytes], out: Path, *, other: Mapping[str, Mapping[str, bytes]] = {}
    ) -> None:
        self.root = root
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._told: dict[str, int] = dict.fromkeys(HOSTS, 0)
        self._number = 0
        self._gone: set[str] = set()
        for host in HOSTS:
            self._start(host, {**files, **other.get(host, {})}, {"out": str(out)})

    def _start(self, host: str, files: Mapping[str, bytes], variables: Mapping[str, Any]) -> None:
        directory = self.root / host
        for name, content in files.items():
            path = directory / "bundle" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        spec = {
            "playbook": "site.yml",
            "limit": None,
            "home": str(self.root / "home" / host),
            "inventory": inventory({each: "local" if each == host else "llmagentos_elsewhere" for each in HOSTS}),
            "extra_vars": variables,
            "lockstep": {
                "me": host,
                "lead": HOSTS[0],
                "hosts": HOSTS,
                "forks": len(HOSTS),
                "files": True,
                "reasons": [],
            },
        }
        (directory / "spec.json").write_text(json.dumps(spec))
        with (directory / "output.log").open("wb") as output:
            self.processes[host] = subprocess.Popen(
                [sys.executable, "-P", "-m", "llmagentos_ansible", str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory / "bundle",
            )

    def carry(self) -> None:
        """All that was shared since the last time, to everybody, in one order; and who has ended."""
        new: list[str] = []
        for host in HOSTS:
            ended = self.processes[host].poll() is not None
            for line in self._shared(host):
                if (share := json.loads(line))["kind"] == "file":
                    self._bring(host, share["digest"])
                self._number += 1
                new.append(json.dumps({"id": self._number, "from": host, "share": json.loads(line)}))
            if ended and host not in self._gone:
                self._gone.add(host)
                new.append(json.dumps({"gone": host, "why": "it ended"}))
        for host in HOSTS if new else ():
            with (self.root / host / "peers.jsonl").open("a") as peers:
                peers.writelines(line + "\n" for line in new)

    def _shared(self, host: str) -> list[bytes]:
        path = self.root / host / "shares.jsonl"
        lines = path.read_bytes()[self._told[host] :].split(b"\n")[:-1] if path.exists() else []
        self._told[host] += sum(len(line) + 1 for line in lines)
        return lines

    def _bring(self, host: str, digest: str) -> None:
        """A fetched file, before the others hear of it."""
        for other in HOSTS:
            target = self.root / other / "fetched" / digest
            target.parent.mkdir(exist_ok=True)
            if other != host:
                target.write_bytes((self.root / host / "fetched" / digest).read_bytes())

    def tell(self, line: Mapping[str, Any]) -> None:
        """Put a line of somebody's into everybody's file."""
        for host in HOSTS:
            with (self.root / host / "peers.jsonl").open("a") as peers:
                peers.write(json.dumps(line) + "\n")

    def to_the_end(self, out: Path, *, within: float = 100.0) -> Ran:
        """Carry until all have ended."""
        deadline = time.monotonic() + within
        while any(process.poll() is None for process in self.processes.values()):
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError({host: (self.root / host / "output.log").read_text() for host in HOSTS})
            self.carry()
            time.sleep(0.005)
        ran = Ran(files=written(out))
        for host in HOSTS:
            path = self.root / host / "exit.json"
            found = json.loads(path.read_text()) if path.exists() else {"code": None, "recap": {}, "error": "killed"}
            ran.codes[host] = found["code"]
            ran.recap |= found["recap"]
            if found["error"]:
                ran.errors[host] = found["error"]
        return ran

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def events(self, host: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / host / "events.jsonl").read_text().splitlines()]


def ansible_playbook(root: Path, files: Mapping[str, bytes], out: Path) -> Ran:
    """The same with the real thing, all hosts by the local connection."""
    for name, content in files.items():
        path = root / "playbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "hosts.yml").write_text(json.dumps(inventory(dict.fromkeys(HOSTS, "local"))))
    program = Path(sys.executable).with_name("ansible-playbook")
    environ = {**os.environ, "ANSIBLE_HOME": str(root / "home"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [program, "-i", root / "hosts.yml", "-e", json.dumps({"out": str(out)}), "site.yml"],
        cwd=root / "playbook",
        env=environ,
        capture_output=True,
        text=True,
    )
    recap = {
        found[1]: dict(zip(_COUNTS, map(int, found.groups()[1:]), strict=True))
        for found in _RECAP.finditer(done.stdout)
    }
    return Ran({"all": done.returncode}, recap, written(out))


def written(out: Path) -> dict[str, str]:
    """The files in `out`; the order of lines that several hosts wrote at once is left out."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            text = path.read_text().replace(str(out), "OUT")
            found[path.name] = text
    return found


def scenario(directory: Path) -> dict[str, bytes]:
    """The files of a scenario."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "expected.json"
    }


def code_of_all(codes: Sequence[int | None]) -> int:
    """ansible-playbook's exit code for all hosts together, from those of each."""
    return max((code or 0 for code in codes), default=0)

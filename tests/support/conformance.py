"""One playbook by ansible-playbook and by our runner in the same place; what its tasks returned, as JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmagentos.api.jobs import Inventory, NodeJob
from llmagentos.fleet.node.jobdir import JobDirectory
from llmagentos.fleet.node.spec import runner_spec
from llmagentos_ansible.runner import Spec, environment

_VARYING = {"start", "end", "delta", "atime", "mtime", "ctime", "inode", "version"}
# Names of temporary files and directories, jobs and objects, and where ansible-core's code lies.
_TEMPORARY = re.compile(
    r"\S*?(ansible-tmp-[0-9.]+-\d+-\d+|ansible-local-\w+|ansible-moduletmp-[0-9.]+-\w+|ansible\.\w{8}|_payload_\w+)"
    r"|(?<=/)\.[a-z0-9_]{8}\b|^\.[a-z0-9_]{8}$|\b0x[0-9a-f]+\b|\bj\d+\.\d+\b"
)
_CODE = re.compile(r"File [^ ]*?ansible/module_utils/")


class Bench:
    """A directory with a playbook `site.yml`, its files, and a writable `out` beside it."""

    def __init__(self, root: Path, cases: Mapping[str, str], files: Mapping[str, str] | None = None) -> None:
        self.job = JobDirectory(root / "job")
        self.home = root / "ansible"
        self.names = [*cases]
        self._files = {"site.yml": _playbook(cases), **(files or {})}

    def by_us(self, **options: Any) -> dict[str, Any]:
        """What the tasks returned through the runner."""
        self._prepare(**options)
        argv = [sys.executable, "-P", "-m", "llmagentos_ansible", str(self.job.root)]
        done = subprocess.run(argv, env=dict(os.environ), capture_output=True, timeout=240)
        return self._results(done)

    def by_ansible(self) -> dict[str, Any]:
        """What they returned under ansible-playbook with the same settings."""
        self._prepare()
        (self.job.root / "inventory.json").write_text(json.dumps(self._spec["inventory"]))
        env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        env |= environment(self.job.root, Spec(playbook="", limit="", home=str(self.home), inventory={}))
        env |= {"ANSIBLE_STDOUT_CALLBACK": "default"}
        argv = [Path(sys.executable).parent / "ansible-playbook", "-i", self.job.root / "inventory.json", "site.yml"]
        done = subprocess.run(
            [*map(str, argv)], env=env, cwd=self.job.bundle, stdin=subprocess.DEVNULL, capture_output=True, timeout=240
        )
        return self._results(done)

    @property
    def output(self) -> str:
        """What the last run printed."""
        return self._output

    def _prepare(self, **options: Any) -> None:
        shutil.rmtree(self.job.root, ignore_errors=True)
        for name, text in self._files.items():
            path = self.job.bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        (self.job.bundle / "out").mkdir()
        job = NodeJob(1, 1, "web1", "", "site.yml", Inventory(hostvars={"web1": {}}), **options)
        self._spec = runner_spec(job, home=str(self.home), variables={})
        self.job.write_spec(self._spec)

    def _results(self, done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
        self._output = (done.stdout + done.stderr).decode(errors="replace")
        path = self.job.bundle / "results.json"
        assert path.exists(), self._output[-5000:]
        found = json.loads(path.read_text())
        return {name: normal(each["results"]) for name, each in zip(self.names, found, strict=True)}


def _playbook(cases: Mapping[str, str]) -> str:
    """Each task once in a loop of one, because only items keep their `invocation` when they are registered."""
    head = "- hosts: all\n  gather_facts: false\n  vars: {out: '{{ playbook_dir }}/out'}\n  tasks:\n"
    tasks = "".join(
        f"    - name: {name}\n      {task}\n      loop: [0]\n      register: r{number}\n      ignore_errors: true\n"
        for number, (name, task) in enumerate(cases.items())
    )
    every = ", ".join(f"r{number}" for number in range(len(cases)))
    content = f"{{{{ [{every}] | to_json }}}}"
    return f"{head}{tasks}    - copy: {{content: '{content}', dest: '{{{{ playbook_dir }}}}/results.json'}}\n"


def normal(value: Any) -> Any:
    """A result without what differs from run to run by its nature: times, inodes, names of temporary files."""
    if isinstance(value, dict):
        return {name: normal(each) for name, each in value.items() if name not in _VARYING}
    if isinstance(value, list):
        return [normal(each) for each in value]
    return _CODE.sub("File ansible/module_utils/", _TEMPORARY.sub("TMP", value)) if isinstance(value, str) else value

# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""`fetch`: what it copies goes to whoever asked for the job, by way of the node agent.

ansible-core's own action copies to the machine that runs the playbook, which is this node. What it made there is
told to the node agent:

    fetched/DIGEST   the bytes, by their SHA-256
    fetched.jsonl    {"path", "source", "digest", "size"} for each: `path` relative to the playbook's directory, or
                     absolute

In a job whose nodes use each other's, all of them are told, and each puts the file where its own copy of the task
says: a node cannot have another one write anything else.

Files for absolute paths are kept below outside/, and found there by whatever looks for a file of the controller's
(`copy`, `template`, lookups): nothing but the job's own directory is written to on the node. What lies there already,
on the machine of whoever asked for the job, is known by its SHA-256 from the variable `FETCHED_BEFORE`, as far as that
was told: a file that is the same there has not changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from ansible._internal._datatag._tags import TrustedAsTemplate
from ansible._internal._templating._engine import TemplateEngine
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import fetch
from ansible.utils.path import unfrackpath

from llmagentos.api.job_files import FETCHED_BEFORE, MAX_FILE_BYTES, MAX_FILES, MAX_JOB_BYTES, MAX_PATH
from llmagentos.fleet.playbooks.destinations import Destination

_TEMPLATE = re.compile(r"\{\{.*?\}\}", re.S)
_PIECE = 1024 * 1024
_NAME = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_PATH}}}")


class Fetched:
    """What this node's tasks fetch."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "bundle"
        self._outside = directory / "outside"
        self._store = directory / "fetched"
        self._list = directory / "fetched.jsonl"
        self.tell_nodes: Callable[[dict[str, Any]], None] | None = None
        """Tells the other nodes of a file, where these use it."""

    def install(self) -> None:
        """From now on, for all tasks of this process and its forks."""
        own = fetch.ActionModule.run
        fetched = self

        @wraps(own)
        def run(action: Any, tmp: Any = None, task_vars: Any = None) -> Any:
            before = (task_vars or {}).get(FETCHED_BEFORE)
            return fetched.run(action, lambda: own(action, tmp, task_vars), before if isinstance(before, dict) else {})

        fetch.ActionModule.run = run
        DataLoader.path_dwim = self._found(DataLoader.path_dwim)
        DataLoader.path_dwim_relative_stack = self._found_in_stack(DataLoader.path_dwim_relative_stack)

    def run(self, action: Any, own: Callable[[], Any], before: Mapping[str, Any]) -> Any:
        """`ActionModule.run` of `fetch`; `before`: SHA-256s of what whoever asked has, by absolute path."""
        arguments = action._task.args
        dest, source = arguments.get("dest"), arguments.get("src")
        if not isinstance(dest, str) or not isinstance(source, str) or action._task.check_mode:
            return own()
        aim = Path(os.path.normpath(Path(action._loader.get_basedir()) / Path(dest).expanduser()))
        outside = not aim.is_relative_to(self._root)
        if outside and not dest.startswith(("/", "~")):
            return _failed(f"dest {dest!r} leads out of the playbook's directory: give an absolute path")
        if (problem := _too_large(action, source)) is not None:
            return _failed(problem)
        if outside:
            shadow = f"{self._outside}{aim}" + ("/" if dest.endswith("/") else "")
            action._task.args = {**arguments, "dest": shadow}
        result = own()
        if result.get("failed") or result.get("skipped") or not (made := result.get("dest")):
            return result
        if outside:
            result["dest"] = made.removeprefix(str(self._outside))
        try:
            same = self._tell(Path(made), source, before if outside else {})
        except ValueError as error:
            return {**result, **_failed(str(error))}
        return _unchanged(result, source) if same and result.get("changed") else result

    def _tell(self, made: Path, source: str, before: Mapping[str, Any]) -> bool:
        """Whether it is the same as `before`, and nothing came to its place in this job so far."""
        base = self._outside if made.is_relative_to(self._outside) else self._root
        path = str(made.relative_to(base) if base == self._root else Path("/") / made.relative_to(base))
        size = made.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{path} has {size} bytes: at most {MAX_FILE_BYTES} are fetched of one file")
        if not _NAME.fullmatch(path) or not _NAME.fullmatch(source):
            raise ValueError(f"{path!r} cannot be told: names have to be UTF-8, without control characters")
        told = self._so_far()
        if len(told) >= MAX_FILES or sum(each["size"] for each in told) + size > MAX_JOB_BYTES:
            raise ValueError(f"at most {MAX_FILES} files and {MAX_JOB_BYTES} bytes are fetched by one job")
        digest = self._keep(made)
        line = json.dumps({"path": path, "source": source, "digest": digest, "size": size}).encode() + b"\n"
        descriptor = os.open(self._list, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)  # in one call: lines of two processes do not mix
        finally:
            os.close(descriptor)
        if self.tell_nodes is not None:
            self.tell_nodes({"path": path, "digest": digest})
        return before.get(path) == digest and all(each["path"] != path for each in told)

    def _so_far(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in self._list.read_bytes().splitlines()]
        except FileNotFoundError:
            return []

    def _keep(self, made: Path) -> str:
        """A copy under the digest: the next task may write to the same place."""
        self._store.mkdir(exist_ok=True, mode=0o700)
        beside = self._store / f".{os.getpid()}"
        digest = hashlib.sha256()
        with made.open("rb") as source, os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as copy:
            copy.truncate()
            while piece := source.read(_PIECE):
                digest.update(piece)
                copy.write(piece)
        beside.replace(self._store / digest.hexdigest())
        return digest.hexdigest()

    # --- of other nodes --------------------------------------------------------------------------------

    def place(self, share: Mapping[str, Any], process: Any) -> None:
        """Put a file of another node where the task of `process` says. Raises `AnsibleError` when it does not."""
        path, host = str(share["path"]), process._host.name
        base = os.path.relpath(process._loader.get_basedir(), self._root)
        asked = path.removeprefix(f"{base}/") if not path.startswith("/") else path
        if not self._destination(process).allows(asked, host):
            raise AnsibleError(f"Another node has fetched {path!r}, which this task of {host} does not say.")
        target = Path(f"{self._outside if path.startswith('/') else self._root}/{path}")
        try:
            content = (self._store / share["digest"]).read_bytes()
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(self._root.parent):
                raise AnsibleError(f"{path!r} leads out of the playbook's directory")
            beside = target.with_name(f".{os.getpid()}.fetched")
            beside.write_bytes(content)
            beside.replace(target)
        except OSError as error:
            raise AnsibleError(f"{path!r}, which was fetched from {host}, did not come here: {error}") from error

    def _destination(self, process: Any) -> Destination:
        """Where the task may have its file: as it is written, with what variables say."""
        task, base = process._task, f"{process._loader.get_basedir()}/"
        engine = TemplateEngine(loader=process._loader, variables=process._task_vars)
        dest, src = (_filled(task.args.get(name), engine) for name in ("dest", "src"))
        flat = task.args.get("flat")
        known = None if isinstance(flat, str) and "{{" in flat else boolean(flat or False, strict=False)
        return Destination(dest.removeprefix(base), src, known)

    # --- absolute paths of the controller ------------------------------------------------------------

    def _elsewhere(self, given: Any) -> str | None:
        """Where a fetched file or directory of an absolute path lies."""
        if not isinstance(given, str) or not given.startswith(("/", "~")) or not self._outside.is_dir():
            return None
        found = f"{self._outside}{unfrackpath(given, follow=False)}"
        return found if Path(found).exists() else None

    def _found(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(own)
        def path_dwim(loader: Any, given: Any) -> Any:
            return self._elsewhere(given) or own(loader, given)

        return path_dwim

    def _found_in_stack(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(own)
        def path_dwim_relative_stack(loader: Any, paths: Any, dirname: Any, source: Any, is_role: bool = False) -> Any:
            return self._elsewhere(source) or own(loader, paths, dirname, source, is_role)

        return path_dwim_relative_stack


def _filled(value: Any, engine: TemplateEngine) -> str:
    """The text with those of its templates that can be evaluated here: not the item of a loop."""
    if not isinstance(value, str) or not TrustedAsTemplate.is_tagged_on(value):
        return str(value or "")

    def filled(match: re.Match[str]) -> str:
        try:
            return str(engine.template(TrustedAsTemplate().tag(match[0])))
        except AnsibleError:
            return match[0]

    return _TEMPLATE.sub(filled, str(value))


def _too_large(action: Any, source: str) -> str | None:
    """Why the file is not even copied, as far as that can be seen from here."""
    try:
        size = Path(source).expanduser().stat().st_size
        if action._connection.transport == "local" and size > MAX_FILE_BYTES:
            return f"{source} has {size} bytes: at most {MAX_FILE_BYTES} are fetched of one file"
    except (OSError, ValueError, RuntimeError):  # the action says what is wrong
        return None
    return None


def _unchanged(result: dict[str, Any], source: str) -> dict[str, Any]:
    """As ansible-core says it of a file that it finds at its destination."""
    kept = {name: value for name, value in result.items() if name not in ("remote_md5sum", "remote_checksum")}
    return {**kept, "changed": False, "file": source}


def _failed(message: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": message}

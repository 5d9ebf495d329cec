# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""One run of one playbook, from files to files.

JOBDIR holds, written by the node agent:

    spec.json     the `Spec`
    bundle/       the playbook's directory

and is given, by this program:

    runner.json   first of all: {"pid", "start" (ticks since boot, proc(5)), "begun" (monotonic seconds)}
    events.jsonl  what happened, one JSON object per line, in order
    exit.json     at the very end, in one step: {"code", "recap", "error"}; codes as ansible-playbook's
    output.log    whatever is printed, bounded
"""

from __future__ import annotations

import gc
import io
import json
import locale
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from llmagentos_ansible import events, modulefork

ANSWERS = "llmagentos_answers"  # api.jobs
OUTPUT_BYTES = 1024 * 1024
PLUGINS = Path(__file__).parent / "plugins"
_ERROR, _ANY_HOST = 1, 15  # of ansible-playbook's exit codes: the playbook is wrong; all that hosts can add up to


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run."""

    playbook: str  # relative to bundle/
    limit: str | None  # the inventory name of this machine, and localhost where a play says so
    home: str  # directory of ansible-core's own state on this machine: collections, temporary files
    inventory: Mapping[str, Any]  # as Ansible's YAML inventories: {"all": {"hosts": ..., "children": ...}}
    inventory_directory: str | None = None  # inside bundle/, with its group_vars and host_vars
    extra_vars: Mapping[str, Any] = field(default_factory=dict)
    check: bool = False
    diff: bool = False
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    verbosity: int = 0
    start_at_task: str | None = None
    lockstep: Mapping[str, Any] | None = None  # for a playbook that spans hosts: {"me", "lead", "hosts", "forks"}


def main(directory: Path) -> NoReturn:
    """Run what `directory` describes; ends the process with ansible-playbook's exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been inherited as ignored
    directory = directory.absolute()
    began_with = dict(os.environ)
    server = modulefork.start(_locks(directory)) if modulefork.available() else None
    work(directory, server, began_with)


def work(
    directory: Path,
    server: socket.socket | None,
    began_with: Mapping[str, str],
    settle: Callable[[], None] | None = None,
) -> NoReturn:
    """`main` with the fork server for its modules, and the environment that it and this process began with.

    `settle` is given where ansible-core is imported already: it makes it look at the environment again.
    """
    _write(directory / "runner.json", {"pid": os.getpid(), "start": _start(), "begun": time.monotonic()})
    sys.stdout = sys.stderr = _bounded(2, OUTPUT_BYTES)
    gc.set_threshold(50_000, 20, 100)  # a worker lives for one task: looking for cycles in it is not worth the time
    log = events.open_log(directory / "events.jsonl")
    try:
        spec = Spec(**json.loads((directory / "spec.json").read_bytes()))
        os.chdir(directory / "bundle")
        code = _run(directory, spec, log, (server, began_with), settle)
    except KeyboardInterrupt:
        code = events.INTERRUPTED
        log.error("interrupted")
    except BaseException as error:  # the outermost edge: whoever waits for exit.json must be told
        import traceback

        traceback.print_exc()
        log.error(f"{type(error).__name__}: {error}")
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else events.UNEXPECTED
    _write(directory / "exit.json", {"code": code, "recap": log.recap, "error": log.failure})
    sys.stdout.flush()
    os._exit(code)  # ansible-core leaves threads and at-exit work behind; nothing of ours is left to do


def _run(
    directory: Path,
    spec: Spec,
    log: events.Log,
    modules: tuple[socket.socket | None, Mapping[str, str]],
    settle: Callable[[], None] | None,
) -> int:
    _write(_inventory(directory, spec), spec.inventory)
    _write(directory / "extra-vars.json", {name: spec.extra_vars[name] for name in spec.extra_vars if name != ANSWERS})
    os.environ.update(environment(directory, spec))
    if settle is not None:
        settle()
    # Imported only now: ansible-core reads its configuration from the environment when it is imported.
    from ansible.cli import CLI
    from ansible.cli.playbook import PlaybookCLI
    from ansible.errors import AnsibleError
    from ansible.parsing.vault import VaultSecret, VaultSecretsContext

    from llmagentos_ansible import displayed, inline, prompted, shortcuts
    from llmagentos_ansible.execution import Executor
    from llmagentos_ansible.fetched import Fetched
    from llmagentos_ansible.preload import preload

    if passwords := _passwords(directory):
        secrets = [(each["id"], VaultSecret(each["password"].encode())) for each in passwords]

        def setup_vault_secrets(*_: Any, **__: Any) -> Any:
            VaultSecretsContext.initialize(VaultSecretsContext(secrets))
            return secrets

        CLI.setup_vault_secrets = setup_vault_secrets

    class Command(PlaybookCLI):  # type: ignore[misc]
        def _play_prereqs(self) -> Any:
            if settle is None:
                preload()  # here, because what it loads needs the paths of collections, which are set by now
            return super()._play_prereqs()

    displayed.install(log)
    Executor(*modules).install()
    shortcuts.install()
    (fetched := Fetched(directory)).install()
    prompted.install(spec.extra_vars.get(ANSWERS) or {})
    forked = inline.install()
    if spec.lockstep is not None:
        _go_in_step(directory, spec.lockstep, log, forked, fetched)
    try:
        code = int(Command(_arguments(directory, spec)).run() or 0)
        return code if spec.lockstep is None else _own(code, log.recap)
    except AnsibleError as error:
        sys.stderr.write(f"{error}\n")
        log.error(_told(error, directory))
        return int(getattr(error, "_exit_code", 1))


def _go_in_step(directory: Path, told: Mapping[str, Any], log: events.Log, forked: Any, fetched: Any) -> None:
    """Go from task to task with the other nodes; `forked` starts a worker in a process of its own."""
    from ansible.utils.display import Display

    from llmagentos_ansible import delegation, inline
    from llmagentos_ansible.lockstep import Lockstep, Members

    members = Members(told["me"], told["lead"], frozenset(told["hosts"]))
    log.mine = members.mine
    Display().vvv(f"in step with the other nodes: {', '.join(told['reasons'])}")
    lockstep = Lockstep(directory, members)
    lockstep.install(forked, inline.execute)
    delegation.install(lockstep)
    if told.get("files"):
        fetched.tell_nodes, lockstep.place = lockstep.tell_of_file, fetched.place


def _passwords(directory: Path) -> list[dict[str, str]]:
    """The vault passwords, which nobody needs on the disk from now on."""
    path = directory / "vault.json"
    try:
        found: list[dict[str, str]] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    path.unlink()
    return found


def _own(code: int, recap: Mapping[str, Mapping[str, int]]) -> int:
    """The exit code for this node's hosts alone, of a run that ended for all of the job's."""
    if any(found["unreachable"] for found in recap.values()):
        return 4
    if any(found["failed"] for found in recap.values()):
        return 2
    return code if code & _ERROR or code > _ANY_HOST else 0


def _told(error: Exception, directory: Path) -> str:
    """The message with the place in the playbook, as the user knows it."""
    context = getattr(error, "_formatted_source_context", None)
    text = f"{error}\n{context}" if context else str(error)
    return text.replace(f"{directory / 'bundle'}/", "")


def _arguments(directory: Path, spec: Spec) -> list[str]:
    forks = str(spec.lockstep["forks"]) if spec.lockstep else "1"
    given = ["ansible-playbook", "--inventory", str(_inventory(directory, spec)), "--forks", forks]
    given += ["--limit", spec.limit] if spec.limit is not None else []
    given += ["--extra-vars", f"@{directory / 'extra-vars.json'}"]
    given += ["--check"] * spec.check + ["--diff"] * spec.diff + ["-" + "v" * spec.verbosity] * bool(spec.verbosity)
    given += ["--start-at-task", spec.start_at_task] if spec.start_at_task is not None else []
    for tag in spec.tags:
        given += ["--tags", tag]
    for tag in spec.skip_tags:
        given += ["--skip-tags", tag]
    return [*given, "--", spec.playbook]


def _inventory(directory: Path, spec: Spec) -> Path:
    """Where the inventory is written: ansible-core looks for its group_vars and host_vars beside it."""
    if spec.inventory_directory is None:
        return directory / "inventory.json"
    return directory / "bundle" / spec.inventory_directory / ".llmagentos-inventory.json"


def environment(directory: Path, spec: Spec) -> dict[str, str]:
    """Settings that hold whatever the user of this machine or the bundle configured."""
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        del os.environ[name]
    home = Path(spec.home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = directory / "bundle" / "ansible.cfg"  # one beside the playbook counts, as for ansible-playbook
    if not config.is_file():
        config = directory / "ansible.cfg"
        config.touch()
    return {
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(home / "tmp"),
        "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS / "callback"),
        "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
        "ANSIBLE_INVENTORY_ENABLED": "yaml",  # the one inventory is written by this program
        "ANSIBLE_STDOUT_CALLBACK": "llmagentos_events",
        "ANSIBLE_MODULE_STRICT_UTF8_RESPONSE": "0",  # bytes that are not UTF-8 are shown, not a reason to fail
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_NOCOWS": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }


def _locks(directory: Path) -> tuple[int, ...]:
    """The job's lock, when the node agent handed it to this process."""
    try:
        lock = (directory / "lock").stat()
    except FileNotFoundError:
        return ()
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return tuple(number for number in numbers if _is(number, lock))


def _is(descriptor: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:  # the one that listed the directory
        return False


def _start() -> int:
    """When this process started: with the process id it is unlike any other until the next boot."""
    try:
        return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:  # not Linux
        return 0


def in_utf8() -> None:
    """Start this program again when the locale's encoding is another one: ansible-core refuses to run then."""
    if os.environ.get("LC_ALL") != "C.UTF-8" and not _utf8_locale():
        os.environ["LC_ALL"] = "C.UTF-8"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very program


def _utf8_locale() -> bool:
    before = locale.setlocale(locale.LC_ALL, None)
    try:
        locale.setlocale(locale.LC_ALL, "")
        return (locale.getlocale()[1] or "").lower() in ("utf-8", "utf8")
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _write(path: Path, document: Any) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8", errors="replace") as file:
        json.dump(document, file, ensure_ascii=False, default=str)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _bounded(descriptor: int, limit: int) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(_Bounded(descriptor, limit))
    return _Output(buffer, encoding="utf-8", errors="replace", line_buffering=True)


class _Output(io.TextIOWrapper):
    def getvalue(self) -> str:
        """What ansible-core asks a worker's output for: nothing is kept back here."""
        return ""


class _Bounded(io.RawIOBase):
    """A file descriptor that takes so many bytes; the rest is dropped, and that is said once."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        self._left = limit

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        if self._left > 0:
            os.write(self._descriptor, content[: self._left])
            self._left -= len(content)
            if self._left <= 0:
                os.write(self._descriptor, b"\n[the rest is left out]\n")
        return len(content)

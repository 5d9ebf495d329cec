# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Runs one task module in this process, which was forked for it, as a new Python would have.

What a new interpreter has and a fork has not is set up here: environment, standard streams, arguments,
module search path. The module itself is started by ansible-core's own code, `_loader.run_module`, which
its payloads bring along; at the end the exit handlers run as they do when an interpreter ends.
"""

from __future__ import annotations

import atexit
import importlib
import io
import json
import locale
import os
import resource
import selectors
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn

from llmagentos_ansible.forkserver import Run

_MODULES = (
    "blockinfile command copy cron file find getent group lineinfile replace service setup slurp stat systemd_service"
    " user"
)
# Of ansible.module_utils.urls, which itself looks for other packages: apt, get_url, unarchive, uri.
_OF_URLS = "email.mime.application email.mime.multipart gzip http.cookiejar mimetypes netrc ssl urllib.request zipfile"
# What many modules import and what imports nothing but Python's own and ansible-core's: whether another package is
# there may change from task to task. Others are imported by the module's own fork.
PRELOADED = (
    "ansible.module_utils.basic",
    "ansible.module_utils._internal._ansiballz._loader",
    "ansible.module_utils._internal._json._profiles._module_legacy_c2m",
    "ansible.module_utils._internal._json._profiles._module_legacy_m2c",
    *(f"ansible.modules.{name}" for name in _MODULES.split()),
    *_OF_URLS.split(),
)

_REHEARSED: dict[str, dict[str, Any]] = {
    "ansible.modules.command": {"_raw_params": "true"},
    "ansible.modules.file": {"path": "/", "state": "directory", "_ansible_check_mode": True},
    "ansible.modules.stat": {"path": "/", "get_checksum": False, "get_mime": False, "get_attributes": False},
}
_REHEARSALS = 3
_PREEXEC = "AnsibleModule.run_command.<locals>.preexec"
_codes: dict[tuple[str, str], types.CodeType | None] = {}
_get_code = SourceFileLoader.get_code


def preload() -> None:
    """Import what modules share, and run some of it here, so that forks do not each begin with empty caches."""
    for name in PRELOADED:
        importlib.import_module(name)
    for name, module in [each for each in sys.modules.items() if each[0].startswith("ansible.modules.")]:
        # A module runs as the main program, which nobody has imported. What it imports stays.
        loader, path = module.__loader__, module.__file__
        if isinstance(loader, SourceFileLoader) and path is not None:
            _codes[name, path] = loader.get_code(name)
        del sys.modules[name]
    SourceFileLoader.get_code = _code_of  # type: ignore[method-assign]
    basic = sys.modules["ansible.module_utils.basic"]
    basic.selectors = types.SimpleNamespace(**{**vars(selectors), "PollSelector": _PollSelector})  # type: ignore[attr-defined]
    basic.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": _popen})  # type: ignore[attr-defined]
    for _ in range(_REHEARSALS):
        for name, arguments in _REHEARSED.items():
            _rehearse(name, arguments)


def _code_of(loader: SourceFileLoader, fullname: str) -> types.CodeType | None:
    """A preloaded module's code is not read from the disk again for each of its runs."""
    return _codes.get((fullname, loader.path)) or _get_code(loader, fullname)


def _rehearse(name: str, arguments: dict[str, Any]) -> None:
    """Run a module that changes nothing to its end in this process, and leave no more than caches."""
    found = {name: dict(vars(module)) for name, module in sys.modules.items() if name.startswith("ansible.")}
    language, argv, stdout, environ = locale.setlocale(locale.LC_ALL), sys.argv, sys.stdout, dict(os.environ)
    sys.argv, sys.stdout = [name], io.StringIO()
    quiet = {**arguments, "_ansible_no_log": True}
    try:
        _module({"rlimit_nofile": 0, "params": json.dumps({"ANSIBLE_MODULE_ARGS": quiet}), "module": name})
    except SystemExit:
        for module, members in found.items():  # what they keep of their arguments
            vars(sys.modules[module]).update(members)
    finally:
        locale.setlocale(locale.LC_ALL, language)
        sys.argv, sys.stdout = argv, stdout
        _environment(environ)


class _PollSelector(selectors.PollSelector):
    """Does not wait for nothing.

    `AnsibleModule.run_command` asks twice whether its program has ended. When it ends in between, after both of
    its pipes, ansible-core waits for a second on a selector that has nothing to wait for.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout) if self.get_map() else []


def _popen(*args: Any, preexec_fn: Callable[[], object] | None = None, **options: Any) -> subprocess.Popen[Any]:
    """Without a function that `AnsibleModule.run_command` gives along and that sets the umask at most.

    With one, Python copies the whole process to start another program, and by vfork(2) without.
    """
    if preexec_fn is not None and preexec_fn.__qualname__ == _PREEXEC and preexec_fn.__code__.co_freevars == ("umask",):
        (umask,) = preexec_fn.__closure__ or ()
        return subprocess.Popen(*args, umask=umask.cell_contents or -1, **options)
    return subprocess.Popen(*args, preexec_fn=preexec_fn, **options)


def ready() -> Run:
    """What can be done before the module is known; returns `run`."""
    _streams()
    return run


def run(file: int, tell: Callable[[int], None]) -> NoReturn:
    """Run the module that `file` describes (see `modulefork.Request`), tell its exit code, and end as it ends."""
    with open(file, "rb") as opened:
        opened.seek(0)
        request = json.load(opened)
    _ended(lambda: _as_new(request), tell)


def _as_new(request: dict[str, Any]) -> None:
    _environment(request["environ"])
    os.chdir(request["cwd"])
    os.environ["PWD"] = str(Path.cwd())  # set by the shell that ansible-core starts modules with
    time.tzset()
    os.umask(request["umask"])
    sys.argv = [request["argv0"]]
    if "script" in request:
        _script(request["script"])
    else:
        _module(request)


def _environment(wanted: dict[str, str]) -> None:
    """Only what differs is set: nearly all of it is what this process was forked with."""
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _module(request: dict[str, Any]) -> None:
    """One of ansible-core's own, from where it is installed."""
    _limit(request["rlimit_nofile"])
    from ansible.module_utils._internal._ansiballz import _loader

    _loader.run_module(
        json_params=request["params"].encode(),
        profile="legacy",
        module_fqn=request["module"],
        modlib_path=str(Path(_loader.__file__).parents[4]),
        extensions={},
    )


def _script(script: str) -> None:
    """The payload that ansible-core made: it unpacks an archive with the module and what that imports."""
    from ansible.module_utils._internal._ansiballz import _loader

    run_module: Callable[..., None] = _loader.run_module

    def from_archive(*, modlib_path: str, **rest: Any) -> None:
        for package in ("ansible", "ansible.module_utils"):  # imported here already, from elsewhere
            path = f"{modlib_path}/{package.replace('.', '/')}"
            sys.modules[package].__path__ = [path, *sys.modules[package].__path__]
        _lead_into(modlib_path)
        run_module(modlib_path=modlib_path, **rest)

    _loader.run_module = from_archive
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(script, sys.argv[0], "exec"), main.__dict__)  # noqa: S102 - what ansible-core gives to an interpreter


def _lead_into(archive: str) -> None:
    """Where ansible-core's code asks for its own place, the archive counts too."""
    from ansible.module_utils._internal import _deprecator
    from ansible.module_utils.common import respawn

    respawn._ANSIBLE_PARENT_PATH = Path(archive)
    installed, known = str(_deprecator._ANSIBLE_MODULE_BASE_PATH), _deprecator._path_as_core_plugininfo
    _deprecator._path_as_core_plugininfo = lambda path: known(path.replace(f"{archive}/ansible", installed, 1))


def _limit(wanted: int) -> None:
    """The soft limit of open files, as the payload's own start sets it."""
    if wanted:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = min(hard, wanted) if hard != resource.RLIM_INFINITY else wanted
        if wanted != soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _streams() -> None:
    """New standard streams on the descriptors 0 to 2, with the encodings that this interpreter began with."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        first = getattr(sys, f"__{name}__")
        raw = io.FileIO(number, "wb" if number else "rb", closefd=False)
        buffered = io.BufferedWriter(raw) if number else io.BufferedReader(raw)
        stream = io.TextIOWrapper(buffered, encoding=first.encoding, errors=first.errors, line_buffering=number == 2)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _ended(call: Callable[[], None], tell: Callable[[int], None]) -> NoReturn:
    """End the process as Python ends after `call`."""
    code, process = 0, os.getpid()
    try:
        call()
    except SystemExit as end:
        code = _code(end)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = code or 120  # as Python's own end
    code &= 0xFF
    if os.getpid() == process:  # and not a fork that the module left behind
        os.closerange(1, 3)
        tell(code)
    os._exit(code)


def _code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1

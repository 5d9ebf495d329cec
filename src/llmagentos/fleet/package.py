"""This package as a wheel, made of what runs here: what a server gives to machines that become nodes.

It is the same whether the package was installed from an index, from a file or from a checkout. The content decides
every byte of it (no times), so its SHA-256 names the version that really runs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from llmagentos.core.errors import InvalidInput

NAME = "llmagentos"
LOCK = Path(__file__).with_name("requirements-node.lock")
MAX_WHEEL = 64 * 1024 * 1024
MAX_FILES = 20_000
_PACKAGES = (NAME, "llmagentos_ansible")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_]{0,63}")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel: its file name, content and SHA-256 (hexadecimal)."""

    file: str
    version: str
    content: bytes
    digest: str


def build() -> Wheel:
    """The wheel of what is installed here. Reads files: not for the event loop."""
    known = distribution(NAME)
    info = f"{NAME}-{known.version}.dist-info"
    files = dict(_code())
    for name in ("METADATA", "entry_points.txt"):
        if (text := known.read_text(name)) is not None:
            files[f"{info}/{name}"] = text.encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: llmagentos\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return pack(files, known.version)


def pack(files: dict[str, bytes], version: str) -> Wheel:
    """A wheel (PEP 427) of `files`, with its RECORD."""
    record = f"{NAME}-{version}.dist-info/RECORD"
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in sorted(files.items())]
    files = {**files, record: "\n".join([*lines, f"{record},,\n"]).encode()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path, content in sorted(files.items()):
            member = zipfile.ZipInfo(path, _EPOCH)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    content = out.getvalue()
    file = f"{NAME}-{version}-py3-none-any.whl"
    return Wheel(file, version, content, hashlib.sha256(content).hexdigest())


def read(content: bytes) -> Wheel:
    """A wheel from elsewhere, checked: this package, pure Python. Raises `InvalidInput`."""
    if len(content) > MAX_WHEEL:
        raise InvalidInput(f"a wheel of {len(content)} bytes is too large: at most {MAX_WHEEL}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            metadata = [name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            if len(metadata) != 1 or len(names) > MAX_FILES:
                raise InvalidInput("not a wheel: it has to hold one METADATA", hint="`python -m build` makes one")
            if archive.getinfo(metadata[0]).file_size > 1024 * 1024:
                raise InvalidInput("not a wheel: its METADATA is over 1 MiB")
            told = BytesParser().parsebytes(archive.read(metadata[0]), headersonly=True)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, EOFError, OSError, RuntimeError) as error:
        raise InvalidInput(f"not a wheel: {error}") from None
    name, version = str(told.get("Name", "")).lower(), str(told.get("Version", ""))
    if name != NAME or not _VERSION.fullmatch(version):
        raise InvalidInput(f"the wheel is {name[:60]!r} {version[:60]!r}, not a version of {NAME}")
    if f"{NAME}/fleet/node/__main__.py" not in names:
        raise InvalidInput("the wheel holds no node agent")
    return Wheel(f"{NAME}-{version}-py3-none-any.whl", version, content, hashlib.sha256(content).hexdigest())


def _code() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".pyo"):
                yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()

"""Unpacking archives that somebody else made."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.fleet.node.bundles import BadBundle, unpack


def archive(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        fill(tar)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content) if member.isreg() else None)


def link(tar: tarfile.TarFile, name: str, to: str) -> None:
    add(tar, name, b"", type=tarfile.SYMTYPE, linkname=to)


def take(content: bytes, target: Path, **limits: int) -> None:
    unpack(content, hashlib.sha256(content).hexdigest(), target, **limits)


def test_files_directories_and_modes(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "site.yml", b"- hosts: all\n")
        add(tar, "roles/a/tasks/main.yml", "名字\n".encode())
        add(tar, "run.sh", b"#!/bin/sh\n", mode=0o4755)
        link(tar, "again.yml", "site.yml")

    take(archive(fill), tmp_path / "bundle")
    assert (tmp_path / "bundle/roles/a/tasks/main.yml").read_text() == "名字\n"
    assert (tmp_path / "bundle/run.sh").stat().st_mode & 0o7777 & ~0o022 == 0o755
    assert (tmp_path / "bundle/again.yml").read_text() == "- hosts: all\n"


@pytest.mark.parametrize(
    ("fill", "why"),
    [
        (lambda tar: add(tar, "../out"), "leads out"),
        (lambda tar: add(tar, "a/../../out"), "leads out"),
        (lambda tar: add(tar, "/etc/out"), "leads out"),
        (lambda tar: link(tar, "l", "/etc/passwd"), "leads out"),
        (lambda tar: link(tar, "a/l", "../../x"), "leads out"),
        (lambda tar: (link(tar, "p/q", ".."), link(tar, "z", "p/q/../x")), "leads out"),
        (lambda tar: (link(tar, "d", "/tmp"), add(tar, "d/file")), "twice"),
        (lambda tar: (add(tar, "a"), add(tar, "a")), "twice"),
        (lambda tar: add(tar, "h", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "no file"),
        (lambda tar: add(tar, "dev", b"", type=tarfile.CHRTYPE), "no file"),
        (lambda tar: add(tar, "fifo", b"", type=tarfile.FIFOTYPE), "no file"),
    ],
)
def test_attacks(tmp_path: Path, fill: Callable[[tarfile.TarFile], None], why: str) -> None:
    with pytest.raises(BadBundle, match=why):
        take(archive(fill), tmp_path / "bundle")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}
    assert not any(path.is_symlink() for path in (tmp_path / "bundle").rglob("*"))


def test_a_small_file_that_stands_for_gigabytes(tmp_path: Path) -> None:
    content = archive(lambda tar: add(tar, "zeros", bytes(5_000_000)))
    assert len(content) < 20_000
    with pytest.raises(BadBundle, match="unpacks to over 1000000 bytes"):
        take(content, tmp_path / "bundle", most_bytes=1_000_000)


def test_a_header_that_claims_a_huge_name(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    header.size = 1 << 40
    bomb = gzip.compress(header.tobuf(tarfile.PAX_FORMAT) + bytes(4_000_000))
    with pytest.raises(BadBundle):
        take(bomb, tmp_path / "bundle", most_bytes=1_000_000)


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="SHA-256"):
        unpack(b"x", "0" * 64, tmp_path / "bundle")


@given(st.binary(max_size=2000), st.integers(0, 3))
def test_no_bytes_get_out_or_break_it(tmp_path_factory: pytest.TempPathFactory, noise: bytes, how: int) -> None:
    target = tmp_path_factory.mktemp("any") / "bundle"
    whole = archive(lambda tar: add(tar, "site.yml", b"- hosts: all\n" * 50))
    content = [noise, gzip.compress(noise), whole[: len(noise) % len(whole)], whole[:40] + noise][how]
    try:
        take(content, target)
    except BadBundle:
        return
    assert all(path.resolve().is_relative_to(target.resolve()) for path in target.rglob("*"))

"""A playbook's directory as the nodes get it."""

from __future__ import annotations

import os

import pytest

from llmagentos.cli.pack import pack
from llmagentos.core.errors import TooLarge
from llmagentos.fleet.playbooks import bundle


def test_the_same_files_give_the_same_bytes(tmp_path):
    (tmp_path / "site.yml").write_text("- hosts: all\n")
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "x.sh").write_text("echo")
    first = pack(tmp_path)
    os.utime(tmp_path / "site.yml", (1, 1))
    assert pack(tmp_path) == first
    (tmp_path / "roles" / "x.sh").chmod(0o755)
    assert pack(tmp_path) != first, "a file's mode counts"


def test_what_is_left_out_and_what_is_added(tmp_path):
    root, other = tmp_path / "play", tmp_path / "other"
    for name in ("site.yml", ".git/config", "__pycache__/a.pyc", ".venv/x", "files/a.txt", "site.retry"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (root / "link").symlink_to(root / "files" / "a.txt")
    (root / "broken").symlink_to(root / "nothing")
    (root / "again").symlink_to(root)
    os.mkfifo(root / "pipe")
    other.mkdir()
    (other / "all.yml").write_text("a: 1")
    files = bundle.read(pack(root, more={"inv/group_vars": other, "inv/one.yml": other / "all.yml"})[1])
    assert sorted(files) == ["files/a.txt", "inv/group_vars/all.yml", "inv/one.yml", "link", "site.yml"]


def test_too_much_is_refused(tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(200_000))
    with pytest.raises(TooLarge, match="too large"):
        pack(tmp_path, most=100_000)

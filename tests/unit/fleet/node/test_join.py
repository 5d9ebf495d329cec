"""What a machine that joins is told before anything is asked or installed."""

from __future__ import annotations

import asyncio
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.node.join import identity
from llmagentos.fleet.node.state import NodeDirectory

NAMES = ["bad name!", ".hidden", "节点", "a/b"]


@pytest.mark.parametrize("name", [*NAMES, "x" * 64, "a\n", ""])
def test_a_name_that_is_none_is_refused_at_once(tmp_path: Path, name: str) -> None:
    directory = NodeDirectory(tmp_path / "node")
    directory.prepare()
    token = tmp_path / "token"
    token.write_text("lao_join_x")
    token.chmod(0o600)
    with pytest.raises(InvalidInput, match="cannot be called"):
        asyncio.run(identity(directory, server="http://127.0.0.1:1", ca=None, token=token, name=name))


@pytest.mark.parametrize("name", NAMES)
def test_so_does_install_sh_before_it_installs(tmp_path: Path, name: str) -> None:
    script = files("llmagentos.server").joinpath("install", "install.sh").read_text("utf-8")
    prefix = tmp_path / "opt"
    argv = ["sh", "-s", "--", "--token", "lao_join_x", "--server", "http://127.0.0.1:1", "--name", name]
    done = subprocess.run(
        [*argv, "--prefix", str(prefix)], input=script, capture_output=True, text=True, timeout=60, encoding="utf-8"
    )
    assert done.returncode == 1
    assert "cannot be called" in done.stderr
    assert not prefix.exists()

"""The package as a wheel: made of what runs, the same every time; foreign ones are checked."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.core.errors import InvalidInput
from llmagentos.fleet import package

ROOT = Path(__file__).parents[3]


def test_it_is_whole_and_the_same_every_time() -> None:
    made = package.build()
    assert package.build().digest == made.digest
    assert package.read(made.content) == made
    with zipfile.ZipFile(io.BytesIO(made.content)) as wheel:
        names = set(wheel.namelist())
    assert {"llmagentos/fleet/requirements-node.lock", "llmagentos/server/install/install.sh"} <= names
    assert "llmagentos_ansible/__main__.py" in names
    assert not any("__pycache__" in name for name in names)


def test_the_node_agents_pins_are_those_of_the_lock() -> None:
    done = subprocess.run([sys.executable, "scripts/lock_node.py", "--check"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"x-1.dist-info/METADATA": b"Name: other\nVersion: 1\n"},
        {
            "llmagentos-1.dist-info/METADATA": b"Name: llmagentos\nVersion: ../1\n",
            "llmagentos/fleet/node/__main__.py": b"",
        },
        {"llmagentos-1.dist-info/METADATA": b"Name: llmagentos\nVersion: 1\n"},
    ],
)
def test_what_is_no_wheel_of_ours_is_refused(files: dict[str, bytes]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(InvalidInput):
        package.read(out.getvalue())


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_wheel_or_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput):
        package.read(content)

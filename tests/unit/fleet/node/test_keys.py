"""The node's key, its counter, and the place from which it speaks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llmagentos.core.errors import ConfigError
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.keys import BLOCK, Counter, Credential


def test_numbers_grow_over_restarts_and_are_reserved_ahead(tmp_path: Path) -> None:
    first = Counter(tmp_path / "counter")
    used = [first.next() for _ in range(BLOCK + 2)]
    assert used == list(range(1, BLOCK + 3))
    second = Counter(tmp_path / "counter")
    assert second.next() > used[-1]


def test_a_counter_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("many")
    with pytest.raises(ConfigError, match="counter"):
        Counter(tmp_path / "counter")


def test_a_copy_of_the_state_is_another_place(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    shutil.copytree(one, tmp_path / "two")
    assert keys.place(one) == keys.place(one) != keys.place(tmp_path / "two")


def test_a_credential_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "credential.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        Credential(tmp_path / "credential.pem")

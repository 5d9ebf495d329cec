"""What is told of files that are there already: those at the very paths that a playbook names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llmagentos.cli import fetched_before
from llmagentos.cli.fetched_before import known
from llmagentos.fleet.playbooks.destinations import Destination


def test_files_at_their_places_and_nothing_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("web1/etc/hosts", "web2/etc/hosts", "web3/etc/hosts", "web1/etc/other", "hosts"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "directory").mkdir()
    wanted = [
        Destination(str(tmp_path), "/etc/hosts", False),
        Destination(f"{tmp_path}/directory", "/etc/hosts", True),
        Destination(f"{tmp_path}/not-there", "/etc/hosts", True),
    ]
    digests = {f"{tmp_path}/{n}": hashlib.sha256(n.encode()).hexdigest() for n in ("web1/etc/hosts", "web2/etc/hosts")}
    assert known(wanted, ["web1", "web2"]) == digests
    monkeypatch.setattr(fetched_before, "MOST_FILES", 1)
    assert len(known(wanted, ["web1", "web2"])) == 1
    monkeypatch.setattr(fetched_before, "MOST_BYTES", 3)
    assert known(wanted, ["web1", "web2"]) == {}

"""Units of the configuration are written and taken away; those of playbooks are left alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmagentos.core.config.schema import ModuleUnit
from llmagentos.server.supervisor import units


def read(path: Path) -> dict[str, object]:
    found: dict[str, object] = msgspec.yaml.decode(path.read_bytes())
    return found


def test_units_follow_the_configuration(tmp_path: Path) -> None:
    directory = tmp_path / "modules.d"
    shop = ModuleUnit(command=["python", "shop.py"], env={"A": "1"}, workdir="/srv", watch=["/srv/shop.py"])
    assert units.write(tmp_path, {"shop": shop, "mail": ModuleUnit(command=["mail"])}) == []
    assert read(directory / "shop.yaml") == {
        "command": ["python", "shop.py"],
        "env": {"A": "1"},
        "workdir": "/srv",
        "watch": ["/srv/shop.py"],
    }
    assert read(directory / "mail.yaml") == {"command": ["mail"]}
    assert units.write(tmp_path, {"shop": ModuleUnit(command=["new"])}) == []
    assert {path.name for path in directory.iterdir()} == {"shop.yaml"}
    assert read(directory / "shop.yaml") == {"command": ["new"]}


def test_what_a_playbook_wrote_stays(tmp_path: Path) -> None:
    directory = tmp_path / "modules.d"
    directory.mkdir()
    (directory / "shop.yaml").write_text("command: [theirs]\n")
    (warning,) = units.write(tmp_path, {"shop": ModuleUnit(command=["ours"])})
    assert "modules.shop" in warning
    assert read(directory / "shop.yaml") == {"command": ["theirs"]}
    units.write(tmp_path, {})
    assert read(directory / "shop.yaml") == {"command": ["theirs"]}

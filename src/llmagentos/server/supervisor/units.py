"""Modules of `llmagentos.yaml` as units of the local node agent, beside those that playbooks put there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from llmagentos.core.config.schema import ModuleUnit

_MARK = "# From `modules` of llmagentos.yaml: changes belong there.\n"


def write(node: Path, modules: Mapping[str, ModuleUnit]) -> list[str]:
    """Make the units in the node agent's state directory `node` those of `modules`; returns warnings.

    Units that a playbook wrote stay as they are, also under a name that the configuration uses.
    """
    directory, warnings = node / "modules.d", list[str]()
    for part in (node, directory):
        part.mkdir(exist_ok=True, mode=0o700)
    for path in directory.glob("*.yaml"):
        if path.stem not in modules and _is_ours(path):
            path.unlink()
    for name, unit in modules.items():
        path = directory / f"{name}.yaml"
        if path.exists() and not _is_ours(path):
            warnings.append(
                f"modules.{name}: {path} was written by a playbook and stays as it is; rename one of the two"
            )
            continue
        new = path.with_suffix(".new")
        new.write_bytes(_MARK.encode() + msgspec.yaml.encode(unit))
        new.replace(path)
    return warnings


def _is_ours(path: Path) -> bool:
    return path.read_text("utf-8", "replace").startswith(_MARK)

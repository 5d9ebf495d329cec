"""What a run of another tool is told, and how its tool is called."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmagentos.core.errors import Unavailable

Kind = Literal["puppet", "salt"]


class Spec(msgspec.Struct, frozen=True):
    """`spec.json` of a job that is no playbook."""

    kind: Kind
    path: str
    """Inside of the bundle: a manifest, or a directory of states or one of them."""
    host: str
    variables: dict[str, Any] = {}
    check: bool = False
    diff: bool = False
    tags: list[str] = []
    skip_tags: list[str] = []
    verbosity: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A program's arguments and what is added to its environment."""

    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)


class NoTool(Unavailable):
    """The tool is not installed on this node."""

    code = "no_tool"


def tool(name: str, *places: str) -> str:
    """The program's path, from PATH or one of `places`. Raises `NoTool`."""
    found = shutil.which(name) or next((place for place in places if os.access(place, os.X_OK)), None)
    if found is None:
        raise NoTool(f"{name} is not installed on this node")
    return found


def inside(bundle: Path, path: str) -> Path:
    """A path of the bundle, which does not lead out of it. Raises `NoTool` otherwise."""
    found = (bundle / path).resolve()
    if not found.is_relative_to(bundle.resolve()):
        raise NoTool(f"{path!r} leads out of the bundle")
    return found

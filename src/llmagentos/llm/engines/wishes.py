"""Which engines of this machine should run: written by the server, carried out by the supervisor.

A file in `run/`, replaced whole: who reads it late, or again after a crash, does the same. It is emptied
with `run/` when the system starts; then the configuration says which engines run.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llmagentos.core.files import write_whole
from llmagentos.core.state import StateDirectory

_FILE = "engines.json"


class Wish(msgspec.Struct, frozen=True):
    """`generation` grows with each time the model is loaded; `wanted` says whether it should be in memory now."""

    generation: int = 0
    wanted: bool = False


def read(state: StateDirectory) -> dict[str, Wish]:
    """What was wished last, by model; empty when nothing was."""
    try:
        return msgspec.json.decode((state.run / _FILE).read_bytes(), type=dict[str, Wish])
    except (OSError, msgspec.DecodeError):
        return {}


def write(state: StateDirectory, wishes: Mapping[str, Wish]) -> None:
    """Wish for this and nothing else."""
    write_whole(state.run / _FILE, msgspec.json.encode(dict(wishes)))

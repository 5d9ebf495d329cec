# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""What the nodes of a job that spans them tell each other: two files, which the node agent carries to and fro.

shares.jsonl  written here: what this node's tasks came to
peers.jsonl   written by the node agent: everything that all nodes shared, in the one order that all nodes
              see, {"id", "from", "share"}; or {"gone": node, "why"}, after the last of a node that ended
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARE_BYTES = 2 * 1024 * 1024
"""Of one share: the server takes no larger request."""
PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class Heard:
    """One line of `peers.jsonl`. `share` is empty for a node that is gone."""

    node: str
    share: dict[str, Any]
    why: str = ""
    end: int = 0  # where the line ends in the file


class Shares:
    """Appends what this node tells the others. Processes that were forked from this one may append too."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def tell(self, share: dict[str, Any]) -> None:
        """Append one. Raises `ValueError` when it is too long."""
        line = json.dumps(share, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        if len(line) > SHARE_BYTES:
            raise ValueError(f"{len(line)} bytes are too much to share with the other nodes")
        os.write(self._descriptor, line)  # in one call: lines of two processes do not mix


class Peers:
    """Reads what all nodes told, from `offset` on. Each process reads for itself."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset
        self._rest = b""

    def new(self) -> list[Heard]:
        """What came since the last call."""
        try:
            if self._path.stat().st_size <= self.offset + len(self._rest):
                return []
            with self._path.open("rb") as file:
                file.seek(self.offset + len(self._rest))
                data = self._rest + file.read()
        except FileNotFoundError:
            return []
        found = []
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            self.offset += len(line) + 1
            found.append(_heard(json.loads(line), self.offset))
        return found

    def wait(self) -> list[Heard]:
        """What comes next; waits for it."""
        while not (found := self.new()):
            time.sleep(PAUSE_S)
        return found


def _heard(line: dict[str, Any], end: int) -> Heard:
    if "gone" in line:
        return Heard(str(line["gone"]), {}, str(line.get("why") or "it ended"), end)
    return Heard(str(line["from"]), dict(line["share"]), "", end)

"""Which processes make up the system on one machine, as commands to run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from llmagentos.core.child import ChildSpec
from llmagentos.core.config import Loaded
from llmagentos.core.config.load import NOT_CONFIGURATION
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines import Child as EngineChild

SERVER = "server"
NODE = "node"


def environment(loaded: Loaded, state: StateDirectory) -> dict[str, str]:
    """The environment of every child: the same file and state directory, and nobody's credentials."""
    inherited = {name: value for name, value in os.environ.items() if name not in _CREDENTIALS}
    return inherited | {
        "LLMAGENTOS_CONFIG": str(loaded.file or ""),
        "LLMAGENTOS_STATE": str(state.root),
        "PYTHONUNBUFFERED": "1",
    }


_CREDENTIALS = NOT_CONFIGURATION - {"LLMAGENTOS_LANG"}


def server(state: StateDirectory, env: Mapping[str, str]) -> ChildSpec:
    """The server."""
    return ChildSpec(SERVER, (sys.executable, "-m", "llmagentos.server"), state.logs / "server.log", env)


def engine(state: StateDirectory, env: Mapping[str, str], child: EngineChild, generation: int) -> ChildSpec:
    """The process of a model that is served on this machine, for when it is loaded the nth time."""
    return ChildSpec(child.name, child.at(generation), state.logs / f"{child.name}.log", env, child.ready)


def node(state: StateDirectory, env: Mapping[str, str], *, server: str, ca: Path | None, name: str | None) -> ChildSpec:
    """The node agent of this machine; it joins with the token in `join_token` when it has no identity yet."""
    argv = [sys.executable, "-m", "llmagentos.fleet.node", "--state", str(state.node), "--server", server]
    if ca is not None:
        argv += ["--ca", str(ca)]
    if name is not None:
        argv += ["--name", name]
    argv += ["--join-token-file", str(join_token(state))]
    return ChildSpec(NODE, tuple(argv), state.logs / "node.log", env)


def join_token(state: StateDirectory) -> Path:
    """The file with the one-time token of the local node: never an argument, which every user could read."""
    return state.run / "join.token"
